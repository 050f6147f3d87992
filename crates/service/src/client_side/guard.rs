//! The process between this one and a command that it runs for its user.
//!
//! A parent-death signal ends the command's own process only. If this process were killed, the command's children would live
//! on, and send their tokens to its ports, which another user's program may then take. The guard is a child process of the same
//! program. It holds the ports, and ends the command and every process that comes of it when this process has ended, which it
//! sees by a pipe. The ports are free after that.
//!
//! ```text
//! farcall --pipe--> guard: sockets, reaper of orphans --> COMMAND: sockets, dies with the guard --> its children
//! ```

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::process::ExitStatus;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::unistd::{Pid, getpid, getppid, pipe2};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use super::attended_command::{self, Signals, Tree};

/// A command that runs under a guard.
#[derive(Debug)]
pub struct Guarded {
    /// Starts the guard. What is changed of it, such as its environment, is changed for the command.
    pub command: Command,
    /// The guard reads this end of the pipe, and sees when ours closes.
    theirs: OwnedFd,
    ours: OwnedFd,
}

impl Guarded {
    /// `line` is the command with its arguments; `sockets` are those of this process whose ports nobody may have before every
    /// process of the command has ended.
    pub fn new(line: &[OsString], sockets: Vec<RawFd>) -> io::Result<Guarded> {
        let (theirs, ours) = pipe2(OFlag::O_CLOEXEC)?;
        // Also after the file of this program was replaced.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("farcall").arg("guard").arg("--pipe").arg(theirs.as_raw_fd().to_string());
        for socket in &sockets {
            command.arg("--hold").arg(socket.to_string());
        }
        command.arg("--").args(line);
        let inherited: Vec<RawFd> = sockets.into_iter().chain([theirs.as_raw_fd()]).collect();
        // SAFETY: only system calls, and no allocation unless one fails.
        unsafe { command.pre_exec(move || keep_open(&inherited)) };
        Ok(Guarded { command, theirs, ours })
    }

    /// Runs the command to its end, and ends what it left behind. A SIGTERM for us goes to the command, as
    /// [`attended_command::run`] says. When `over` comes to its end, the command ends whether it wants to or not. `other` is a
    /// child of ours that does not belong to it.
    pub async fn run(
        self,
        signals: &mut Signals,
        other: Option<Pid>,
        over: impl Future<Output = ()>,
    ) -> io::Result<ExitStatus> {
        // For what is left if the guard was killed.
        let _ = nix::sys::prctl::set_child_subreaper(true);
        let mut ended = signal(SignalKind::child())?;
        let Guarded { mut command, theirs, ours } = self;
        let mut guard = command.spawn()?;
        drop(theirs);
        let mut pipe = Some(ours);
        let tree = Tree::of(&guard, other);
        tokio::pin!(over);
        let status = loop {
            tokio::select! {
                status = guard.wait() => break status,
                // A terminal's interrupt reaches the command by itself.
                _ = signals.interrupt.recv() => {}
                _ = signals.terminate.recv() => tree.signal_the_command(),
                _ = ended.recv() => tree.reap(),
                () = &mut over, if pipe.is_some() => pipe = None,
            }
        };
        tree.end().await;
        status
    }
}

/// Runs the command as its guard. `pipe` is the end that the parent has passed, and closes when it ends; `sockets` were passed
/// to be held.
pub async fn guard(mut command: Command, pipe: RawFd, sockets: Vec<RawFd>) -> io::Result<ExitStatus> {
    // SAFETY: the parent has passed it to this process, and nothing else here knows it.
    let pipe = unsafe { OwnedFd::from_raw_fd(pipe) };
    fcntl(&pipe, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    let mut pipe = Receiver::from_file(File::from(pipe))?;
    let mut signals = Signals::catch()?;
    // What a terminal sends to the parent, too: only the parent's end ends the guard before the command has ended. A signal that
    // is ignored, as under `nohup`, stays so: a command does not inherit what is caught, but what is ignored.
    let _caught = [SignalKind::hangup(), SignalKind::quit()]
        .into_iter()
        .filter(|kind| !is_ignored(*kind))
        .map(signal)
        .collect::<io::Result<Vec<_>>>()?;
    end_with_us(&mut command, sockets);
    let parent_ended = async {
        // Nothing is ever written to it.
        while matches!(pipe.read(&mut [0]).await, Ok(1..)) {}
    };
    attended_command::run(command, &mut signals, parent_ended).await
}

fn is_ignored(kind: SignalKind) -> bool {
    let mut action = std::mem::MaybeUninit::<nix::libc::sigaction>::uninit();
    // SAFETY: the action is only read, into memory of its size.
    let read = unsafe { nix::libc::sigaction(kind.as_raw_value(), std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: it was filled in if the call succeeded.
    read == 0 && unsafe { action.assume_init() }.sa_sigaction == nix::libc::SIG_IGN
}

/// Makes the command hold the sockets, and die when this process does.
fn end_with_us(command: &mut Command, sockets: Vec<RawFd>) {
    let parent = getpid();
    let prepare = move || {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        if getppid() != parent {
            return Err(io::Error::other("farcall has ended"));
        }
        keep_open(&sockets)
    };
    // SAFETY: only system calls, and no allocation unless one fails.
    unsafe { command.pre_exec(prepare) };
}

/// Lets the program that is about to be executed have these descriptors.
fn keep_open(descriptors: &[RawFd]) -> io::Result<()> {
    for &descriptor in descriptors {
        // SAFETY: the descriptors are open in the parent, of which this process is a copy.
        if unsafe { nix::libc::fcntl(descriptor, nix::libc::F_SETFD, 0) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
