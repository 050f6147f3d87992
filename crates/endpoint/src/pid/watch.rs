//! Keeps the PID file young and looks whether it is still ours, on a thread of its own: the file system may stand still,
//! and the endpoint must not.

use std::io;
use std::sync::mpsc as blocking;

use tokio::sync::mpsc;

use super::Claim;

/// What was seen.
#[derive(Debug)]
pub(crate) enum WatchEvent {
    /// Another process has claimed the files.
    Superseded,
    /// The modification time of the PID file could not be set.
    TouchFailed(io::Error),
}

/// The thread. It ends with its owner; while the file system stands still, nobody waits for it.
#[derive(Debug)]
pub(crate) struct PidFileWatch {
    looks: blocking::SyncSender<()>,
    said: mpsc::UnboundedReceiver<WatchEvent>,
}

impl PidFileWatch {
    pub(crate) fn start(claim: Claim) -> io::Result<Self> {
        let (looks, inbox) = blocking::sync_channel(1);
        let (outbox, said) = mpsc::unbounded_channel();
        std::thread::Builder::new().name("pid-file".to_owned()).spawn(move || {
            while inbox.recv().is_ok() {
                let said = if claim.holds() {
                    claim.touch().err().map(WatchEvent::TouchFailed)
                } else {
                    Some(WatchEvent::Superseded)
                };
                if said.is_some_and(|said| outbox.send(said).is_err()) {
                    return;
                }
            }
        })?;
        Ok(Self { looks, said })
    }

    /// Looks, and touches the file if it is ours. One look that waits is enough.
    pub(crate) fn look(&self) {
        let _ = self.looks.try_send(());
    }

    /// What was seen; for ever, when all is as it should be.
    pub(crate) async fn said(&mut self) -> WatchEvent {
        match self.said.recv().await {
            Some(said) => said,
            None => std::future::pending().await,
        }
    }
}
