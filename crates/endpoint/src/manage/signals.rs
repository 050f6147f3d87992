//! The signals of a manager. They are blocked from its start to its end, and over an `exec` in place, and read from a
//! descriptor: none is lost, whatever moment it comes at.

use std::io;
use std::os::fd::AsFd as _;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::io::unix::AsyncFd;

const HANDLED: [Signal; 5] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGCHLD];

/// Signals that wait to be handled.
#[derive(Debug)]
pub(super) struct Signals {
    pending: SignalFd,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Stop,
    Restart,
    /// A child has ended.
    Reap,
}

impl Signals {
    /// Blocks the signals. Call it before any thread is started: threads inherit which signals are blocked.
    pub(super) fn block() -> io::Result<Self> {
        let signals = SigSet::from_iter(HANDLED);
        signals.thread_block()?;
        let pending = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { pending })
    }

    /// Begins to wait for them, on the current runtime.
    pub(super) fn listen(&self) -> io::Result<Listener<'_>> {
        // SAFETY: the descriptor is open for as long as `self` is borrowed.
        Ok(Listener { signals: self, readable: unsafe { AsyncFd::register(self.pending.as_fd()) }? })
    }
}

#[derive(Debug)]
pub(super) struct Listener<'a> {
    signals: &'a Signals,
    readable: AsyncFd<std::os::fd::BorrowedFd<'a>>,
}

impl Listener<'_> {
    /// The next signal.
    pub(super) async fn next(&self) -> io::Result<Asked> {
        loop {
            let mut ready = self.readable.readable().await?;
            if let Some(signal) = self.signals.pending.read_signal()? {
                let number = i32::try_from(signal.ssi_signo).unwrap_or_default();
                return Ok(match Signal::try_from(number) {
                    Ok(Signal::SIGHUP) => Asked::Restart,
                    Ok(Signal::SIGCHLD) => Asked::Reap,
                    _ => Asked::Stop,
                });
            }
            ready.clear_ready();
        }
    }
}
