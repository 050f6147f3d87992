//! Whether to ask again, and when. Pure: what happened is given, a pause comes out.
//!
//! The same conditions that the stock SDK repeats on: network trouble and 429, 500, 502, 503, 504; six attempts in
//! all. A 429 or 503 may say itself how long to wait, at most ten seconds.

use std::time::Duration;

use crate::backoff::Backoff;

const ATTEMPTS: u32 = 6;
const PAUSES: Backoff = Backoff { least: Duration::from_millis(250), most: Duration::from_secs(10) };
const LONGEST_REQUESTED: Duration = Duration::from_secs(10);

/// What one attempt ended in, as far as repeating it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    NoAnswer,
    Status { status: u16, retry_after: Option<u64> },
}

/// How long to wait before asking again, or `None` when the outcome stands. `attempt` counts from 0.
pub(crate) fn pause(outcome: Outcome, attempt: u32, fraction: f64) -> Option<Duration> {
    if attempt + 1 >= ATTEMPTS {
        return None;
    }
    match outcome {
        Outcome::Status { status: 429 | 503, retry_after: Some(seconds) } => {
            Some(Duration::from_secs(seconds).min(LONGEST_REQUESTED))
        }
        Outcome::NoAnswer | Outcome::Status { status: 429 | 500 | 502 | 503 | 504, .. } => {
            Some(PAUSES.pause(attempt, fraction))
        }
        Outcome::Status { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_repeated_and_what_stands_is_not() {
        for status in [429, 500, 502, 503, 504] {
            assert!(pause(Outcome::Status { status, retry_after: None }, 0, 0.5).is_some(), "{status}");
        }
        for status in [200, 301, 400, 401, 403, 404, 409, 413, 422, 423, 501] {
            assert_eq!(pause(Outcome::Status { status, retry_after: Some(1) }, 0, 0.5), None, "{status}");
        }
        assert!(pause(Outcome::NoAnswer, 0, 0.5).is_some());
    }

    #[test]
    fn the_sixth_attempt_is_the_last() {
        assert!(pause(Outcome::NoAnswer, 4, 0.0).is_some());
        assert_eq!(pause(Outcome::NoAnswer, 5, 0.0), None);
    }

    #[test]
    fn the_service_may_ask_for_a_pause_within_reason() {
        let busy = |seconds| Outcome::Status { status: 503, retry_after: Some(seconds) };
        assert_eq!(pause(busy(0), 0, 0.9), Some(Duration::ZERO));
        assert_eq!(pause(busy(3), 0, 0.9), Some(Duration::from_secs(3)));
        assert_eq!(pause(busy(86_400), 0, 0.9), Some(Duration::from_secs(10)));
        let failing = Outcome::Status { status: 500, retry_after: Some(9) };
        assert_eq!(pause(failing, 0, 0.0), Some(Duration::from_millis(250)), "only 429 and 503 may ask");
    }
}
