//! Runs a program of the administrator: text in, text out, within a time and a size.
//!
//! The program gets a session of its own, a clean environment, and no descriptors but its three pipes. When it ends, or its
//! time is over, every process of its group is killed, so that none keeps a pipe open or stays behind. Only a process that
//! began a session of its own is not found; its pipes are closed all the same. Nothing here interprets what the program
//! prints.

use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::{Pid, setsid};

use super::answer::ANSWER_LIMIT;
use crate::printable::escaped;
use crate::waiting;

/// How much of standard error is kept for the log, in bytes. The rest is read and dropped.
const COMPLAINT_LIMIT: usize = 1024;
/// How long to wait for a descriptor before looking whether the program has ended: a process that it left behind can keep
/// the descriptors open.
const PATIENCE: Duration = Duration::from_millis(20);
/// How long a killed program may take to end. After that, a thread waits for it.
const END_OF_KILLED: Duration = Duration::from_millis(200);
/// How many killed programs may be waited for. When there are more, no other is started: each keeps a process and a thread.
const MOST_UNENDED: usize = 64;
/// How many are waited for.
static UNENDED: AtomicUsize = AtomicUsize::new(0);

const ENVIRONMENT: [(&str, &str); 2] =
    [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("LANG", "C.UTF-8")];

/// Why a program gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    #[error("{}: {error}", escaped(.program))]
    Start { program: String, error: io::Error },
    #[error("{} did not end within {} s; it and all that it started were killed", escaped(.program), tenths(.limit))]
    TimedOut { program: String, limit: Duration },
    #[error("{} printed more than {ANSWER_LIMIT} bytes; it and all that it started were killed", escaped(.program))]
    TooMuchOutput { program: String },
    #[error("{}: {status}{}", escaped(.program), complaint(.stderr))]
    Failed { program: String, status: ExitStatus, stderr: Vec<u8> },
    #[error("{}: not started, because {unended} killed programs have not ended", escaped(.program))]
    TooManyUnended { program: String, unended: usize },
    #[error("{}: {error}", escaped(.program))]
    Pipe { program: String, error: io::Error },
}

impl ProgramError {
    /// The name of upstream's exception for this error.
    pub fn exception(&self) -> &'static str {
        match self {
            Self::Start { error, .. } => match error.kind() {
                io::ErrorKind::NotFound => "FileNotFoundError",
                io::ErrorKind::PermissionDenied => "PermissionError",
                _ => "OSError",
            },
            Self::TimedOut { .. } => "TimeoutExpired",
            Self::TooMuchOutput { .. } | Self::Failed { .. } => "IdentityMappingError",
            Self::Pipe { .. } | Self::TooManyUnended { .. } => "OSError",
        }
    }
}

/// Seconds with at most one decimal.
fn tenths(time: &Duration) -> f32 {
    (time.as_secs_f32() * 10.0).round() / 10.0
}

fn complaint(stderr: &[u8]) -> String {
    match String::from_utf8_lossy(stderr).trim() {
        "" => String::new(),
        text => format!("; it wrote: {}", escaped(text)),
    }
}

/// Runs a program with `input` on standard input; returns what it printed, if it ended with status 0 before the deadline.
pub(super) fn run(command: &[String], input: &[u8], deadline: Instant) -> Result<Vec<u8>, ProgramError> {
    let started = Instant::now();
    let (program, arguments) =
        command.split_first().map_or(("", command), |(first, rest)| (first.as_str(), rest));
    let program = || program.to_owned();
    let pipe = |error| ProgramError::Pipe { program: program(), error };
    let unended = UNENDED.load(Ordering::Relaxed);
    if unended >= MOST_UNENDED {
        return Err(ProgramError::TooManyUnended { program: program(), unended });
    }
    let mut command = Command::new(program());
    command.args(arguments).env_clear().envs(ENVIRONMENT);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: between fork and exec, `own_session` only makes system calls that are safe after a fork.
    unsafe { command.pre_exec(own_session) };
    let child = command.spawn().map_err(|error| ProgramError::Start { program: program(), error })?;
    let mut running = Running { child: Some(child) };
    let mut pipes = running.pipes().map_err(pipe)?;

    let status = loop {
        pipes.transfer(input).map_err(pipe)?;
        if pipes.output.len() > ANSWER_LIMIT {
            return Err(ProgramError::TooMuchOutput { program: program() });
        }
        if let Some(status) = running.ended().map_err(pipe)? {
            break status;
        }
        let now = Instant::now();
        if now >= deadline {
            return Err(ProgramError::TimedOut { program: program(), limit: deadline - started });
        }
        pipes.wait(input, PATIENCE.min(deadline - now)).map_err(pipe)?;
    };
    // What it printed just before it ended.
    pipes.transfer(input).map_err(pipe)?;
    if pipes.output.len() > ANSWER_LIMIT {
        return Err(ProgramError::TooMuchOutput { program: program() });
    }
    if !status.success() {
        return Err(ProgramError::Failed { program: program(), status, stderr: pipes.complaint });
    }
    Ok(pipes.output)
}

/// Runs in the new process. The program may have been started by a thread that blocks signals, or that dies with the manager.
fn own_session() -> io::Result<()> {
    setsid()?;
    SigSet::empty().thread_set_mask()?;
    // SAFETY: prctl with these arguments reads and writes no memory.
    let answer = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A program that runs. Dropping it kills its process group.
struct Running {
    child: Option<Child>,
}

impl Running {
    fn pipes(&mut self) -> io::Result<Pipes> {
        let taken = self.child.as_mut().map(|it| (it.stdin.take(), it.stdout.take(), it.stderr.take()));
        let Some((stdin, stdout, stderr)) = taken else { return Err(io::ErrorKind::NotFound.into()) };
        stdin.as_ref().map_or(Ok(()), non_blocking)?;
        stdout.as_ref().map_or(Ok(()), non_blocking)?;
        stderr.as_ref().map_or(Ok(()), non_blocking)?;
        Ok(Pipes { stdin, stdout, stderr, written: 0, output: Vec::new(), complaint: Vec::new() })
    }

    /// Its exit status, if it has ended. It stays a zombie: its process group must be killed before its id is free again.
    fn ended(&self) -> io::Result<Option<ExitStatus>> {
        let Some(pid) = self.pid() else { return Err(io::ErrorKind::NotFound.into()) };
        Ok(waiting::look(pid)?)
    }

    fn pid(&self) -> Option<Pid> {
        self.child.as_ref().and_then(|it| it.id().try_into().ok()).map(Pid::from_raw)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails if every process of the group is gone already.
        let _ = self.pid().map(|pid| killpg(pid, Signal::SIGKILL));
        let Some(mut child) = self.child.take() else { return };
        let patience = Instant::now() + END_OF_KILLED;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() > patience {
                // A process that waits for a dead file server can't be killed: the caller must not wait for it.
                UNENDED.fetch_add(1, Ordering::Relaxed);
                let waits = std::thread::Builder::new().spawn(move || {
                    let _ = child.wait();
                    UNENDED.fetch_sub(1, Ordering::Relaxed);
                });
                if waits.is_err() {
                    UNENDED.fetch_sub(1, Ordering::Relaxed);
                }
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn non_blocking(descriptor: &impl AsFd) -> io::Result<()> {
    fcntl(descriptor, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Our ends of a program's pipes; `None` once closed.
struct Pipes {
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    written: usize,
    output: Vec<u8>,
    complaint: Vec<u8>,
}

impl Pipes {
    /// Writes and reads as much as is possible without waiting, up to the limit of the output.
    fn transfer(&mut self, input: &[u8]) -> io::Result<()> {
        if let Some(stdin) = &mut self.stdin {
            let rest = input.get(self.written..).unwrap_or_default();
            // A program need not read its input: a closed pipe is no error.
            match write_some(stdin, rest) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.written = input.len(),
                Err(error) => return Err(error),
            }
            if self.written >= input.len() {
                self.stdin = None;
            }
        }
        read_some(&mut self.stdout, ANSWER_LIMIT + 1, &mut self.output)?;
        let mut complaint = Vec::new();
        read_some(&mut self.stderr, COMPLAINT_LIMIT, &mut complaint)?;
        let room = COMPLAINT_LIMIT - self.complaint.len();
        self.complaint.extend(complaint.into_iter().take(room));
        Ok(())
    }

    /// Waits until something can be transferred, at most for `limit`.
    fn wait(&self, input: &[u8], limit: Duration) -> io::Result<()> {
        let mut wanted = Vec::with_capacity(3);
        if let Some(stdin) = self.stdin.as_ref().filter(|_| self.written < input.len()) {
            wanted.push(PollFd::new(stdin.as_fd(), PollFlags::POLLOUT));
        }
        wanted.extend(self.stdout.as_ref().map(|it| PollFd::new(it.as_fd(), PollFlags::POLLIN)));
        wanted.extend(self.stderr.as_ref().map(|it| PollFd::new(it.as_fd(), PollFlags::POLLIN)));
        // With all pipes closed the program is about to end.
        let limit = if wanted.is_empty() { limit.min(Duration::from_millis(1)) } else { limit };
        match poll(&mut wanted, PollTimeout::try_from(limit).unwrap_or(PollTimeout::ZERO)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Writes until the pipe is full. Writes nothing if there is nothing to write.
fn write_some(stdin: &mut ChildStdin, mut rest: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while !rest.is_empty() {
        match stdin.write(rest) {
            Ok(count) => {
                written += count;
                rest = rest.get(count..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

/// Reads until the pipe is empty or `into` has `limit` bytes. At the end of the stream the pipe is closed.
fn read_some(pipe: &mut Option<impl io::Read>, limit: usize, into: &mut Vec<u8>) -> io::Result<()> {
    let mut part = [0; 8192];
    while into.len() < limit {
        let Some(open) = pipe else { return Ok(()) };
        match open.read(&mut part) {
            Ok(0) => *pipe = None,
            Ok(count) => {
                let room = limit - into.len();
                into.extend(part.iter().take(count.min(room)));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
