//! Computes the pause before a retry. Pure: the random fraction is a parameter.

use std::time::Duration;

/// Pauses between two bounds: the upper limit doubles from attempt to attempt, and chance spreads the pauses below it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    pub(crate) least: Duration,
    pub(crate) most: Duration,
}

impl Backoff {
    /// The pause before the retry of this number, from 0: uniform between the least pause and a limit that doubles up to the
    /// greatest. `fraction` is in `0.0..1.0`.
    pub(crate) fn pause(self, attempt: u32, fraction: f64) -> Duration {
        let limit = self.least.saturating_mul(2_u32.saturating_pow(attempt.saturating_add(1))).min(self.most);
        self.least + (limit.saturating_sub(self.least)).mul_f64(fraction.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit() {
        let backoff = Backoff { least: Duration::from_millis(500), most: Duration::from_secs(10) };
        let table = [(0, 0.0, 500), (0, 1.0, 1_000), (1, 1.0, 2_000), (3, 1.0, 8_000), (4, 1.0, 10_000)];
        for (attempt, fraction, expected) in table {
            assert_eq!(
                backoff.pause(attempt, fraction),
                Duration::from_millis(expected),
                "attempt {attempt}"
            );
        }
        for attempt in [5, 100, u32::MAX] {
            assert_eq!(backoff.pause(attempt, 0.0), Duration::from_millis(500));
            assert_eq!(backoff.pause(attempt, 1.0), Duration::from_secs(10));
        }
    }
}
