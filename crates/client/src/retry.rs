//! Decides whether a request is retried, and after which pause. Pure: no clock, no randomness, no IO.
//!
//! Retries on what the stock SDK retries on: network errors and 429, 500, 502, 503, 504; six attempts in all. A 429 or 503
//! may name the pause (`Retry-After`); ten seconds at most are granted.

use std::time::Duration;

use crate::backoff::Backoff;

const ATTEMPTS: u32 = 6;
const PAUSES: Backoff = Backoff { least: Duration::from_millis(250), most: Duration::from_secs(10) };
const LONGEST_REQUESTED: Duration = Duration::from_secs(10);

/// How one attempt ended, as far as a retry depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    NoAnswer,
    /// `retry_after` is in seconds.
    Answered {
        status: u16,
        retry_after: Option<u64>,
    },
}

/// The pause before the next attempt; `None`: there is no other. `number` is that of the attempt that ended, from 0;
/// `fraction`, in `0.0..1.0`, spreads the pauses.
pub(crate) fn pause(ended: Attempt, number: u32, fraction: f64) -> Option<Duration> {
    if number + 1 >= ATTEMPTS {
        return None;
    }
    match ended {
        Attempt::Answered { status: 429 | 503, retry_after: Some(seconds) } => {
            Some(Duration::from_secs(seconds).min(LONGEST_REQUESTED))
        }
        Attempt::NoAnswer | Attempt::Answered { status: 429 | 500 | 502 | 503 | 504, .. } => {
            Some(PAUSES.pause(number, fraction))
        }
        Attempt::Answered { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_failures_are_retried_and_permanent_ones_are_not() {
        for status in [429, 500, 502, 503, 504] {
            assert!(pause(Attempt::Answered { status, retry_after: None }, 0, 0.5).is_some(), "{status}");
        }
        for status in [200, 301, 400, 401, 403, 404, 409, 413, 422, 423, 501] {
            assert_eq!(pause(Attempt::Answered { status, retry_after: Some(1) }, 0, 0.5), None, "{status}");
        }
        assert!(pause(Attempt::NoAnswer, 0, 0.5).is_some());
    }

    #[test]
    fn the_sixth_attempt_is_the_last() {
        assert!(pause(Attempt::NoAnswer, 4, 0.0).is_some());
        assert_eq!(pause(Attempt::NoAnswer, 5, 0.0), None);
    }

    #[test]
    fn the_service_may_request_a_limited_pause() {
        let busy = |seconds| Attempt::Answered { status: 503, retry_after: Some(seconds) };
        assert_eq!(pause(busy(0), 0, 0.9), Some(Duration::ZERO));
        assert_eq!(pause(busy(3), 0, 0.9), Some(Duration::from_secs(3)));
        assert_eq!(pause(busy(86_400), 0, 0.9), Some(Duration::from_secs(10)));
        let failing = Attempt::Answered { status: 500, retry_after: Some(9) };
        assert_eq!(pause(failing, 0, 0.0), Some(Duration::from_millis(250)), "only 429 and 503 may ask");
    }
}
