//! Touches the PID file and checks that it is still ours, on a thread of its own: a stalled file system must not stall the
//! endpoint.

use std::io;
use std::sync::mpsc as blocking;

use tokio::sync::mpsc;

use super::Claim;

/// What a check found.
#[derive(Debug)]
pub(crate) enum WatchEvent {
    /// Another process has claimed the files.
    Superseded,
    /// The modification time of the PID file could not be set.
    TouchFailed(io::Error),
}

/// The thread that checks. It ends when this handle is dropped, which does not wait for a stalled file system.
#[derive(Debug)]
pub(crate) struct PidFileWatch {
    requests: blocking::SyncSender<()>,
    events: mpsc::UnboundedReceiver<WatchEvent>,
}

impl PidFileWatch {
    pub(crate) fn start(claim: Claim) -> io::Result<Self> {
        let (requests, inbox) = blocking::sync_channel(1);
        let (outbox, events) = mpsc::unbounded_channel();
        std::thread::Builder::new().name("pid-file".to_owned()).spawn(move || {
            while inbox.recv().is_ok() {
                let event = if claim.holds() {
                    claim.touch().err().map(WatchEvent::TouchFailed)
                } else {
                    Some(WatchEvent::Superseded)
                };
                if event.is_some_and(|event| outbox.send(event).is_err()) {
                    return;
                }
            }
        })?;
        Ok(Self { requests, events })
    }

    /// Requests a check, which touches the file if it is ours. At most one request waits.
    pub(crate) fn check(&self) {
        let _ = self.requests.try_send(());
    }

    /// The next finding; waits for ever while everything is in order.
    pub(crate) async fn event(&mut self) -> WatchEvent {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }
}
