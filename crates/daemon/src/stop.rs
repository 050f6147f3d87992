//! The two-stage stop.
//!
//! The first signal begins an orderly stop; the second hurries it. Every task of the process holds a clone of
//! [`Stop`] and waits for the stage it cares about. A stop, once begun, is never taken back.
//!
//! ```text
//! running --first signal--> stopping --second signal--> hurried
//! ```

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How far the stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Running,
    /// Take nothing new, finish what is open.
    Stopping,
    /// Save what must not be lost and leave.
    Hurried,
}

/// Tells when to stop. Cloned freely.
#[derive(Clone, Debug)]
pub struct Stop {
    stage: watch::Receiver<Stage>,
}

/// Begins and hurries the stop. When the last trigger is dropped, the stop counts as hurried: nobody could ask any
/// more.
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
        // An error means that every trigger is gone: nobody can stop us any more, so stop now.
        let _ = stage.wait_for(|now| *now >= wanted).await;
    }
}

/// Stops this process by SIGTERM, SIGINT and SIGQUIT: the first begins the stop, a later one hurries it.
pub fn on_signals() -> io::Result<(Trigger, Stop)> {
    let (trigger, stop) = channel();
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit()] {
        let mut signals = signal(kind)?;
        let trigger = trigger.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                trigger.advance();
            }
        });
    }
    Ok((trigger, stop))
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
