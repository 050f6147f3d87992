//! How many tasks somebody has ended lately: what may be given ahead without holding a task back.

use std::time::Duration;

/// Counts endings by windows of time.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    window_began: Duration,
    this: u32,
    before: u32,
}

impl Pace {
    pub(crate) const WINDOW: Duration = Duration::from_millis(10);

    pub(crate) fn one_more(&mut self, now: Duration) {
        let age = now.saturating_sub(self.window_began);
        if age >= Self::WINDOW {
            self.before = if age < Self::WINDOW * 2 { self.this } else { 0 };
            self.this = 0;
            self.window_began = now;
        }
        self.this += 1;
    }

    /// The most that were ended in one window, of this one and the one before.
    pub(crate) fn lately(&self, now: Duration) -> u32 {
        let age = now.saturating_sub(self.window_began);
        if age < Self::WINDOW {
            self.this.max(self.before)
        } else if age < Self::WINDOW * 2 {
            self.this
        } else {
            0
        }
    }

    /// When [`Self::lately`] falls to nothing, if nothing more ends.
    pub(crate) fn until(&self) -> Duration {
        self.window_began + Self::WINDOW * 2
    }
}
