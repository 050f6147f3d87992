//! How fast one user endpoint may write to the audit log. It owns the other end of its pipe: without a limit, one user could
//! fill the disk, and then nobody's user endpoints may run any more.

use std::time::Duration;

/// How many bytes it may write at once.
const BURST: u64 = 4 * 1024 * 1024;
/// How many bytes a second it may write: about a thousand lines.
const RATE: u64 = 256 * 1024;

/// What one writer may still write. Pure.
#[derive(Debug)]
pub(super) struct Budget {
    left: u64,
    since: Duration,
}

impl Budget {
    pub(super) fn new(now: Duration) -> Self {
        Self { left: BURST, since: now }
    }

    /// Takes a line of this length, and says how long to wait before the next one. Then the pipe fills, and the user
    /// endpoint waits.
    pub(super) fn take(&mut self, length: usize, now: Duration) -> Duration {
        let earned = now.saturating_sub(self.since).as_millis().saturating_mul(u128::from(RATE)) / 1_000;
        let earned = u64::try_from(earned).unwrap_or(u64::MAX);
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(BURST);
            self.since = now;
        }
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        let missing = length.saturating_sub(self.left);
        self.left = self.left.saturating_sub(length);
        let pause = Duration::from_millis(missing.saturating_mul(1_000).div_ceil(RATE));
        // What it earns meanwhile is spent already.
        if !pause.is_zero() {
            self.since = now + pause;
        }
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_that_does_not_stop_gets_its_rate_and_a_usual_one_never_waits() {
        let mut now = Duration::from_secs(5);
        let mut budget = Budget::new(now);
        let mut written = 0;
        while now < Duration::from_secs(105) {
            now += budget.take(4_096, now) + Duration::from_micros(10);
            written += 4_096;
        }
        let most = BURST + 101 * RATE;
        assert!((most * 9 / 10..=most + 4_096).contains(&written), "{written} of {most}");
        let mut budget = Budget::new(now);
        for _ in 0..100_000 {
            now += Duration::from_millis(2);
            assert_eq!(budget.take(300, now), Duration::ZERO);
        }
    }
}
