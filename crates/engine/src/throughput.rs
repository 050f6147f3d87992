//! Counts the tasks that a node or a worker ended in the last milliseconds. It may get as many tasks in advance, and
//! none of them waits long.

use std::time::Duration;

/// Counts ended tasks in windows of time.
#[derive(Debug, Default)]
pub(crate) struct Throughput {
    window_began: Duration,
    current: u32,
    previous: u32,
}

impl Throughput {
    pub(crate) const WINDOW: Duration = Duration::from_millis(10);

    pub(crate) fn record_end(&mut self, now: Duration) {
        let age = now.saturating_sub(self.window_began);
        if age >= Self::WINDOW {
            self.previous = if age < Self::WINDOW * 2 { self.current } else { 0 };
            self.current = 0;
            self.window_began = now;
        }
        self.current += 1;
    }

    /// The larger count of the current window and the one before.
    pub(crate) fn recent(&self, now: Duration) -> u32 {
        let age = now.saturating_sub(self.window_began);
        if age < Self::WINDOW {
            self.current.max(self.previous)
        } else if age < Self::WINDOW * 2 {
            self.current
        } else {
            0
        }
    }

    /// When [`Self::recent`] becomes zero if nothing more ends.
    pub(crate) fn zero_at(&self) -> Duration {
        self.window_began + Self::WINDOW * 2
    }
}
