//! Holds a user's PAM session open while their user endpoint runs, and closes it once.
//!
//! ```text
//! manager ── holder (root) ──┬── user endpoint (the user)
//!                            └── stand-in (root): closes the session if the holder is killed
//! ```
//! The holder waits. It ends the user endpoint when the manager is gone or when asked to ([`Holding`] says how), closes
//! the session, and ends with the user endpoint's own status or signal, so that the manager sees the same as without PAM.
//!
//! The stand-in has a copy of the session, made by `fork`, and a pipe from the holder. The holder announces on that pipe
//! that it closes the session. If the pipe ends without that, the stand-in closes it: so it is closed once.
//!
//! Neither takes any input but signals, the pipe, and the ends of processes. They never read a file of the user. The
//! holder signals only its own child that it has not reaped, whose number nobody else can have; the stand-in can't know
//! that, and has a process do it that became the user ([`rights`](super::rights)), so that it can hit nobody else's.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{ForkResult, Pid, Uid, fork, getppid, pipe2};

use super::ending::{exit, log};
use super::holding::{Action, Event, Holding};
use super::pam::Session;
use super::rights::{as_user, kill_group};
use super::signals::{self, ENDING};
use super::stage::{Failure, Problem, Stage};
use super::stand_in::{self, CLOSING, NOBODY};
use super::user::LocalUser;
use crate::waiting;

/// How often to look for the manager on kernels without process handles (before 5.3).
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// How long a process that only sends a signal may take.
const SIGNAL_LIMIT: Duration = Duration::from_millis(200);

/// The status of a holder that can't know its user endpoint's.
const FAILED: i32 = 1;

/// Which of the processes the caller is after [`divide`].
pub(super) enum Role {
    /// The process that becomes the user endpoint.
    UserEndpoint { holder: Pid },
    /// The process that holds the session: it calls [`Holder::hold`].
    Holder(Box<Holder>),
}

pub(super) struct Holder {
    session: Session,
    child: Pid,
    uid: Uid,
    manager: Pid,
    stand_in: File,
}

/// Divides the launcher: a stand-in, the process that becomes the user endpoint, and the holder. The stand-in never
/// returns from here.
///
/// `let_go` closes what only the user endpoint may have open: the report pipe, the audit pipe, the credentials.
pub(super) fn divide(
    session: Session,
    user: &LocalUser,
    manager: Pid,
    let_go: &mut dyn FnMut(),
) -> Result<Role, Failure> {
    match start_processes() {
        Ok(Started::Holder { child, stand_in }) => {
            let_go();
            Ok(Role::Holder(Box::new(Holder { session, child, uid: user.uid, manager, stand_in })))
        }
        // Its copy of the session is not closed: that is the holder's to do.
        Ok(Started::UserEndpoint { holder }) => {
            signals::end_when_asked();
            Ok(Role::UserEndpoint { holder })
        }
        Ok(Started::StandIn { messages }) => {
            let_go();
            stand_in::stand_in(session, user.uid, messages)
        }
        Err(errno) => {
            session.close();
            let problem = Problem::system(errno, None).with(" (starting the processes of a session)");
            Err(problem.at(Stage::HostAuthentication))
        }
    }
}

/// Which process this is.
enum Started {
    Holder { child: Pid, stand_in: File },
    UserEndpoint { holder: Pid },
    StandIn { messages: File },
}

/// Forks twice.
fn start_processes() -> Result<Started, Errno> {
    let (messages, stand_in) = pipe2(OFlag::O_CLOEXEC)?;
    let holder = Pid::this();
    // SAFETY: this process has one thread.
    if let ForkResult::Child = unsafe { fork() }? {
        return Ok(Started::StandIn { messages: File::from(messages) });
    }
    drop(messages);
    let mut stand_in = File::from(stand_in);
    // A stand-in that is gone already can't stand in; the holder itself can still do all.
    let mut tell = |bytes: &[u8]| drop(stand_in.write_all(bytes));
    signals::hold_requests_to_end();
    // SAFETY: as above.
    match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => {
            tell(&child.as_raw().to_ne_bytes());
            Ok(Started::Holder { child, stand_in })
        }
        Ok(ForkResult::Child) => Ok(Started::UserEndpoint { holder }),
        Err(errno) => {
            tell(&NOBODY);
            tell(&[CLOSING]);
            Err(errno)
        }
    }
}

impl Holder {
    /// Waits for the user endpoint, closes the session, and ends as the user endpoint ended.
    pub(super) fn hold(mut self) -> ! {
        let status = self.wait();
        let _ = self.stand_in.write_all(&[CLOSING]);
        signals::note_requests_to_end();
        for failure in self.session.close() {
            log(&failure);
        }
        end_like(status)
    }

    fn wait(&mut self) -> ExitStatus {
        let mut heard: SigSet = ENDING.into_iter().collect();
        heard.add(Signal::SIGCHLD);
        let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&heard), None);
        let signals = SignalFd::with_flags(&heard, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).ok();
        // Opened before the parent is checked, so that it can't belong to a later process with the same number.
        let manager = process_handle(self.manager);
        let begin = Instant::now();
        let mut holding = Holding::default();
        // Before the signals were held.
        if signals::asked_to_kill() {
            self.perform(holding.apply(Event::AskedToKill, begin.elapsed()));
        } else if signals::asked_to_end() {
            self.perform(holding.apply(Event::AskedToEnd, begin.elapsed()));
        }
        loop {
            let now = begin.elapsed();
            if !holding.orphaned() && getppid() != self.manager {
                self.perform(holding.apply(Event::ManagerGone, now));
            }
            while let Some(Ok(Some(signal))) = signals.as_ref().map(SignalFd::read_signal) {
                let event = match Signal::try_from(signal.ssi_signo.cast_signed()) {
                    Ok(Signal::SIGCHLD) => continue,
                    Ok(signals::KILL) => Event::AskedToKill,
                    _ => Event::AskedToEnd,
                };
                self.perform(holding.apply(event, now));
            }
            self.perform(holding.apply(Event::Tick, now));
            if let Some(status) = self.ended(holding) {
                return status;
            }
            let watch_manager = manager.as_ref().filter(|_| !holding.orphaned());
            let mut wait = holding.wait(now);
            if signals.is_none() || (watch_manager.is_none() && !holding.orphaned()) {
                wait = Some(wait.unwrap_or(CHECK_INTERVAL).min(CHECK_INTERVAL));
            }
            let sources = signals.iter().map(|it| it.as_fd()).chain(watch_manager.map(|it| it.as_fd()));
            let mut sources: Vec<_> = sources.map(|it| PollFd::new(it, PollFlags::POLLIN)).collect();
            let wait = wait.map_or(PollTimeout::NONE, |wait| {
                PollTimeout::try_from(wait + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            });
            let _ = poll(&mut sources, wait);
            if watch_manager.is_some() && sources.last().and_then(PollFd::any) == Some(true) {
                // The handle speaks shortly before the parent changes.
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// The user endpoint's status, if it ended. Its group is ended before it is reaped: until then no other group can
    /// have its number.
    fn ended(&self, holding: Holding) -> Option<ExitStatus> {
        match waiting::look(self.child) {
            Ok(None) => return None,
            Ok(Some(_)) => {}
            // Nobody else reaps it, so this can't be. A holder that waits on would never end.
            Err(_) => return Some(unknown()),
        }
        if holding.ends_the_group() {
            self.perform(Some(Action::Kill));
        }
        Some(waiting::wait(self.child).unwrap_or_else(|_| unknown()))
    }

    fn perform(&self, action: Option<Action>) {
        match action {
            None => {}
            Some(Action::Terminate) => self.signal(|child| kill(child, Signal::SIGTERM)),
            Some(Action::Kill) => self.signal(kill_group),
        }
    }

    /// A manager that isn't root may be allowed to change users and not to signal others' processes.
    fn signal(&self, send: impl Fn(Pid) -> Result<(), Errno>) {
        if send(self.child) == Err(Errno::EPERM) {
            as_user(self.uid, SIGNAL_LIMIT, || {
                let _ = send(self.child);
            });
        }
    }
}

/// In the place of a status that can't be had.
fn unknown() -> ExitStatus {
    ExitStatus::from_raw(FAILED << 8)
}

/// Ends with the same status, or by the same signal.
fn end_like(status: ExitStatus) -> ! {
    let Some(signal) = status.signal() else { exit(status.code().unwrap_or(FAILED)) };
    // Only the user endpoint may leave a core file.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    signals::raise_default(signal);
    exit(128 + signal)
}

/// A handle that becomes readable when the process ends.
fn process_handle(pid: Pid) -> Option<OwnedFd> {
    // SAFETY: the call takes two numbers, and returns a new descriptor that nothing else owns.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let number = i32::try_from(number).ok().filter(|number| *number >= 0)?;
    // SAFETY: as above.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}
