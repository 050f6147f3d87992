//! The frames that go to the engine.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::link::frame::Frame;

/// Sends frames to the engine. While tasks wait for a worker, results are held for up to a millisecond and sent
/// together, so that both sides wake up less often.
pub(super) struct Outbox {
    frames: mpsc::UnboundedSender<Frame>,
    held: Vec<Frame>,
    /// When the held frames are sent at the latest.
    until: Option<Instant>,
}

impl Outbox {
    const MAX_HELD: usize = 32;
    const LONGEST: Duration = Duration::from_millis(1);

    pub(super) fn new(frames: mpsc::UnboundedSender<Frame>) -> Self {
        Self { frames, held: Vec::new(), until: None }
    }

    /// Sends the held frames and then this one. It ignores a lost link, which the reader notices.
    pub(super) fn send(&mut self, frame: Frame) {
        self.release();
        let _ = self.frames.send(frame);
    }

    /// A sender for another thread, whose frames overtake the held ones.
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
