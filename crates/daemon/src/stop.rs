//! The two-stage stop.
//!
//! The first signal begins an orderly stop; the second hurries it. Every task of the process holds a clone of
//! [`Stop`] and waits for the stage it cares about. A stop, once begun, is never taken back.
//!
//! ```text
//! running --first signal--> stopping --second signal--> hurried
//! ```

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The signals that stop a process.
const STOP_SIGNALS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];

/// How far the stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Running,
    /// Take nothing new, finish what is open.
    Stopping,
    /// Save what must not be lost and leave.
    Hurried,
}

/// Says when to stop. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Stop {
    stage: watch::Receiver<Stage>,
}

/// Begins and hurries the stop. When the last trigger is dropped, the stop counts as hurried, because nothing could trigger
/// it any more.
#[derive(Clone, Debug)]
pub struct Trigger {
    stage: watch::Sender<Stage>,
}

/// A stop and what triggers it.
pub fn channel() -> (Trigger, Stop) {
    let (sender, receiver) = watch::channel(Stage::Running);
    (Trigger { stage: sender }, Stop { stage: receiver })
}

impl Trigger {
    /// Goes one stage further, as a signal does.
    pub fn advance(&self) {
        self.stage.send_modify(|stage| {
            *stage = match *stage {
                Stage::Running => Stage::Stopping,
                Stage::Stopping | Stage::Hurried => Stage::Hurried,
            }
        });
    }

    /// Begins the stop; does nothing when it has begun.
    pub fn begin(&self) {
        self.stage.send_if_modified(|stage| {
            let first = *stage == Stage::Running;
            if first {
                *stage = Stage::Stopping;
            }
            first
        });
    }
}

impl Stop {
    /// How far the stop has come by now.
    pub fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Waits until the stop has begun.
    pub async fn begun(&self) {
        self.reached(Stage::Stopping).await;
    }

    /// Waits until the stop is hurried.
    pub async fn hurried(&self) {
        self.reached(Stage::Hurried).await;
    }

    async fn reached(&self, wanted: Stage) {
        let mut stage = self.stage.clone();
        // An error means that every trigger is dropped: nothing else could stop this process, so stop now.
        let _ = stage.wait_for(|now| *now >= wanted).await;
    }
}

/// Stops this process by SIGTERM, SIGINT and SIGQUIT: the first begins the stop, a later one hurries it. Signals that were
/// [deferred](DeferredSignals) before an `exec` arrive now.
pub fn on_signals() -> io::Result<(Trigger, Stop)> {
    let (trigger, stop) = channel();
    for number in STOP_SIGNALS {
        let mut signals = signal(SignalKind::from_raw(number as i32))?;
        let trigger = trigger.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                trigger.advance();
            }
        });
    }
    SigSet::from_iter(STOP_SIGNALS).thread_unblock()?;
    Ok((trigger, stop))
}

/// Defers the signals that stop a process: they stay pending, and none is lost or ends the process. They also stay pending
/// over an `exec`, until the new program calls [`on_signals`]. They are delivered when this is dropped.
///
/// Make it before any thread is started, because threads inherit which signals are blocked.
#[derive(Debug)]
pub struct DeferredSignals {
    blocked_before: SigSet,
    pending: SignalFd,
}

impl DeferredSignals {
    pub fn begin() -> io::Result<Self> {
        let signals = SigSet::from_iter(STOP_SIGNALS);
        let pending = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let blocked_before = SigSet::thread_get_mask()?;
        signals.thread_block()?;
        Ok(Self { blocked_before, pending })
    }

    /// Waits for a signal, which is then no longer pending.
    pub async fn received(&self) -> io::Result<()> {
        // SAFETY: the descriptor is open for as long as `self` is borrowed.
        let pending = unsafe { AsyncFd::register(self.pending.as_fd()) }?;
        loop {
            let mut ready = pending.readable().await?;
            if self.pending.read_signal()?.is_some() {
                return Ok(());
            }
            ready.clear_ready();
        }
    }
}

impl Drop for DeferredSignals {
    fn drop(&mut self) {
        // It only fails for an invalid argument.
        let _ = self.blocked_before.thread_set_mask();
    }
}

/// Makes sure that the signals reach a process that is to be started, even if this process defers them.
pub fn deliver_signals_to(command: &mut Command) {
    let signals = SigSet::from_iter(STOP_SIGNALS);
    // SAFETY: between fork and exec one system call is made, on a value prepared before.
    unsafe {
        command.pre_exec(move || Ok(signals.thread_unblock()?));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_advance_hurries() {
        let (trigger, stop) = channel();
        assert_eq!(stop.stage(), Stage::Running);
        trigger.advance();
        stop.begun().await;
        assert_eq!(stop.stage(), Stage::Stopping);
        trigger.begin();
        assert_eq!(stop.stage(), Stage::Stopping, "begin does not hurry");
        trigger.advance();
        stop.hurried().await;
        assert_eq!(stop.stage(), Stage::Hurried);
    }

    #[tokio::test]
    async fn a_stop_without_triggers_is_over() {
        let (trigger, stop) = channel();
        drop(trigger);
        stop.begun().await;
        stop.hurried().await;
    }

    #[tokio::test]
    async fn a_signal_begins_the_stop() {
        let (_trigger, stop) = on_signals().unwrap();
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGQUIT).unwrap();
        stop.begun().await;
        assert_eq!(stop.stage(), Stage::Stopping);
    }
}
