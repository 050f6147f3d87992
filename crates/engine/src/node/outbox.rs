//! The frames that go to the engine.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::link::frame::Frame;

/// What goes to the engine. While tasks wait for a worker, nobody waits for one result: results go in company, which
/// spares both sides most of their waking up.
pub(super) struct Outbox {
    frames: mpsc::UnboundedSender<Frame>,
    held: Vec<Frame>,
    /// When the first held one goes, in company or not.
    until: Option<Instant>,
}

impl Outbox {
    const MAX_HELD: usize = 32;
    const LONGEST: Duration = Duration::from_millis(1);

    pub(super) fn new(frames: mpsc::UnboundedSender<Frame>) -> Self {
        Self { frames, held: Vec::new(), until: None }
    }

    /// Sends a frame at once, and all that were held before it. When the link is gone the reader knows it, too.
    pub(super) fn send(&mut self, frame: Frame) {
        self.release();
        let _ = self.frames.send(frame);
    }

    /// Sends frames without this outbox, for another thread.
    pub(super) fn sender(&self) -> mpsc::UnboundedSender<Frame> {
        self.frames.clone()
    }

    /// When [`Self::release`] is due, if anything is held.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    pub(super) fn hold(&mut self, frame: Frame) {
        self.held.push(frame);
        if self.held.len() >= Self::MAX_HELD {
            self.release();
        } else if self.until.is_none() {
            self.until = Some(Instant::now() + Self::LONGEST);
        }
    }

    pub(super) fn release(&mut self) {
        self.until = None;
        for frame in self.held.drain(..) {
            let _ = self.frames.send(frame);
        }
    }
}
