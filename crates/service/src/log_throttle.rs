//! Limits how often the log repeats a line about the same mistake of a remote party.

use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

/// The least time between two lines of one kind.
const PAUSE: SignedDuration = SignedDuration::from_secs(10);

/// Counts events of one kind between log lines.
#[derive(Debug, Default)]
pub struct LogThrottle(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    said: Option<Timestamp>,
    unsaid: u64,
}

impl LogThrottle {
    /// Adds `count` events. Returns how many to log now, if a line is due.
    pub fn count(&self, count: u64, now: Timestamp) -> Option<u64> {
        // A panic while it was held cannot have left it half changed.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.unsaid += count;
        // If the clock was set back, lines are only late.
        if state.unsaid == 0 || state.said.is_some_and(|said| now.duration_since(said).abs() < PAUSE) {
            return None;
        }
        state.said = Some(now);
        Some(std::mem::take(&mut state.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_at_once_and_the_others_together() {
        let complaints = LogThrottle::default();
        let at = |seconds| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
        assert_eq!(complaints.count(0, at(0)), None);
        assert_eq!(complaints.count(1, at(0)), Some(1));
        assert_eq!(complaints.count(5, at(1)), None);
        assert_eq!(complaints.count(3, at(9)), None);
        assert_eq!(complaints.count(1, at(10)), Some(9));
        assert_eq!(complaints.count(0, at(30)), None);
    }
}
