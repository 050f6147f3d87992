//! Failures of starts for which no submit waited any more: a set-up that fails after minutes. The next submit is told of it, instead
//! of running the same set-up again in vain. Pure.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use wire::EndpointId;

/// How long a failure is kept.
const KEPT: SignedDuration = SignedDuration::from_mins(10);
/// The most that are kept; one more drops the oldest.
const MOST: usize = 1_000;

/// The failures that nobody has heard of yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Unheard(HashMap<EndpointId, (Timestamp, String)>);

impl Unheard {
    /// Keeps why `user_endpoint` could not be started.
    pub(super) fn add(&mut self, user_endpoint: EndpointId, why: String, now: Timestamp) {
        self.0.retain(|_, (at, _)| now < *at + KEPT);
        if self.0.len() >= MOST
            && let Some(oldest) = self.0.iter().min_by_key(|(_, (at, _))| *at).map(|(id, _)| *id)
        {
            self.0.remove(&oldest);
        }
        self.0.insert(user_endpoint, (now, why));
    }

    /// Takes out why `user_endpoint` could not be started, and says that this was the last attempt.
    pub(super) fn take(&mut self, user_endpoint: EndpointId, now: Timestamp) -> Option<String> {
        let (at, why) = self.0.remove(&user_endpoint)?;
        (now < at + KEPT).then(|| {
            format!(
                "{why}\nThis is of the last attempt, which failed at {at:.0}. Submit again to start it anew"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn id(number: u128) -> EndpointId {
        EndpointId::from_uuid(Uuid::from_u128(number))
    }

    fn at(minutes: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes)
    }

    #[test]
    fn a_failure_is_told_once_and_not_for_long() {
        let mut unheard = Unheard::default();
        assert_eq!(unheard.take(id(1), at(0)), None);
        unheard.add(id(1), "no such package".into(), at(0));
        assert_eq!(unheard.take(id(2), at(1)), None);
        let told = unheard.take(id(1), at(9)).unwrap();
        assert!(told.starts_with("no such package\n") && told.contains("1970-01-01T00:00:00Z"), "{told}");
        assert_eq!(unheard.take(id(1), at(9)), None);
        unheard.add(id(1), "no such package".into(), at(0));
        assert_eq!(unheard.take(id(1), at(10)), None);
    }

    #[test]
    fn old_ones_make_room() {
        let mut unheard = Unheard::default();
        for number in 0..=MOST {
            unheard.add(id(number as u128), "no".into(), at(0) + SignedDuration::from_millis(number as i64));
        }
        assert_eq!(unheard.0.len(), MOST);
        assert_eq!(unheard.take(id(0), at(1)), None, "the oldest");
        unheard.add(id(1), "no".into(), at(100));
        assert_eq!(unheard.0.len(), 1, "too old ones are dropped");
    }
}
