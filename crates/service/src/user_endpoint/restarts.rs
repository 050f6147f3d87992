//! Decides when a user endpoint that has ended is started again for its open tasks. Pure.
//!
//! ```text
//! ended --2 s, manager connected--> started --> alive: its tasks go on
//!   ^                                 |
//!   +------ growing pause ------------+--too many attempts without a task taken--> its tasks end with an error
//! ```
//!
//! Tasks wait for a disconnected manager without limit. After giving up, the next submit tries again.

use std::collections::{HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use wire::EndpointId;

use super::starts::StartResult;

/// The wait before the first attempt: a lost connection is often back within this.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(2);
/// The pause after the first attempt; doubled with each further one.
const PAUSE: SignedDuration = SignedDuration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_secs(60);
/// The pause after a failure of the service itself.
const PAUSE_AFTER_OWN_FAILURE: SignedDuration = SignedDuration::from_secs(10);

/// The present state of a user endpoint with open tasks.
#[derive(Clone, Copy, Debug)]
pub struct UserEndpointState {
    /// The outbox row of its first unacknowledged task.
    pub first: Option<i64>,
    /// It consumes its queue, or has sent a heartbeat lately.
    pub lives: bool,
    pub starting: bool,
    pub manager_connected: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Leave,
    Start,
    /// End its tasks with this reason.
    GiveUp(String),
}

/// What was tried for one user endpoint.
#[derive(Clone, Debug)]
struct Attempts {
    first: Option<i64>,
    gone_since: Option<Timestamp>,
    attempts: u32,
    not_before: Timestamp,
    /// Why the last attempt failed.
    last: Option<String>,
}

/// The attempts for each user endpoint with open tasks.
#[derive(Clone, Debug)]
pub struct Restarts {
    endpoints: HashMap<EndpointId, Attempts>,
    /// The most attempts in a row. 0: user endpoints wait for the next submit.
    most: u32,
}

impl Restarts {
    pub fn new(most: u32) -> Restarts {
        Restarts { endpoints: HashMap::new(), most }
    }

    /// What to do about `id`, which has open tasks.
    pub fn decide(&mut self, id: EndpointId, present: UserEndpointState, now: Timestamp) -> Decision {
        if self.most == 0 {
            return Decision::Leave;
        }
        // A task taken since shows that it came up: attempts in a row are counted.
        if self.endpoints.get(&id).is_some_and(|tried| tried.first != present.first) {
            self.endpoints.remove(&id);
        }
        if present.lives {
            self.endpoints.entry(id).and_modify(|tried| tried.gone_since = None);
            return Decision::Leave;
        }
        if present.starting {
            return Decision::Leave;
        }
        let new =
            Attempts { first: present.first, gone_since: None, attempts: 0, not_before: now, last: None };
        let tried = self.endpoints.entry(id).or_insert(new);
        let since = *tried.gone_since.get_or_insert(now);
        if !present.manager_connected || now < since + FIRST_PAUSE || now < tried.not_before {
            return Decision::Leave;
        }
        if tried.attempts < self.most {
            tried.attempts += 1;
            // Until the result of the attempt is recorded.
            tried.not_before = now + PAUSE_AFTER_OWN_FAILURE;
            return Decision::Start;
        }
        let (attempts, last) = (tried.attempts, tried.last.take().unwrap_or_default());
        self.endpoints.remove(&id);
        Decision::GiveUp(format!("User endpoint {id} did not start in {attempts} attempts: {last}"))
    }

    /// Records the result of an attempt.
    pub fn record_attempt(&mut self, id: EndpointId, result: StartResult, now: Timestamp) {
        let Some(tried) = self.endpoints.get_mut(&id) else { return };
        let doubled = PAUSE * (1 << tried.attempts.saturating_sub(1).min(16));
        tried.not_before = now + doubled.min(LONGEST_PAUSE);
        tried.last = Some(match result {
            StartResult::Ready => "it started and took no task".to_owned(),
            StartResult::Refused(why) => why,
            StartResult::Silent => "it sent no heartbeat".to_owned(),
            StartResult::SettingUp(set_up) => {
                format!("its endpoint_setup had not ended after {} s", set_up.seconds)
            }
            StartResult::TooMany => "its owner has the most user endpoints allowed".to_owned(),
            // No attempt was made.
            StartResult::Away | StartResult::Broken => {
                tried.attempts = tried.attempts.saturating_sub(1);
                tried.not_before = now + PAUSE_AFTER_OWN_FAILURE;
                return;
            }
        });
    }

    /// Forgets all but `ids`: the others have no open tasks.
    pub fn retain(&mut self, ids: &HashSet<EndpointId>) {
        self.endpoints.retain(|id, _| ids.contains(id));
    }

    /// For its owner: that it is being started again, the number of attempts, and why the last one failed.
    pub fn last_failure(&self, id: EndpointId) -> Option<String> {
        let tried = self.endpoints.get(&id)?;
        tried.gone_since?;
        let so_far = match (&tried.last, tried.attempts) {
            (Some(last), attempts) => {
                format!(", attempt {attempts} of {} failed: {last}", self.most)
            }
            (None, _) => String::new(),
        };
        Some(format!("It has ended and has open tasks: its manager is asked to start it again{so_far}"))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const ID: EndpointId = EndpointId::from_uuid(Uuid::from_u128(1));

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
    }

    fn gone(first: i64) -> UserEndpointState {
        UserEndpointState { first: Some(first), lives: false, starting: false, manager_connected: true }
    }

    #[test]
    fn one_that_is_gone_is_started_after_a_moment() {
        let mut restarts = Restarts::new(2);
        assert_eq!(restarts.decide(ID, gone(1), at(0)), Decision::Leave);
        assert_eq!(restarts.decide(ID, gone(1), at(1)), Decision::Leave);
        let lives = UserEndpointState { lives: true, ..gone(1) };
        assert_eq!(restarts.decide(ID, lives, at(2)), Decision::Leave, "it was only cut off");
        assert_eq!(restarts.decide(ID, gone(1), at(4)), Decision::Leave);
        assert_eq!(restarts.decide(ID, gone(1), at(6)), Decision::Start);
        let starting = UserEndpointState { starting: true, ..gone(1) };
        assert_eq!(restarts.decide(ID, starting, at(30)), Decision::Leave);
        assert!(restarts.last_failure(ID).is_some(), "its owner may know");
        assert_eq!(restarts.decide(ID, lives, at(31)), Decision::Leave);
        assert_eq!(restarts.last_failure(ID), None, "it is there again");
    }

    #[test]
    fn tries_are_counted_until_a_task_is_taken() {
        let mut restarts = Restarts::new(2);
        restarts.decide(ID, gone(1), at(0));
        for (time, expected) in [(3, Decision::Start), (10, Decision::Start)] {
            assert_eq!(restarts.decide(ID, gone(1), at(time)), expected);
            restarts.record_attempt(ID, StartResult::Refused("no such queue".into()), at(time));
        }
        let last_failure = restarts.last_failure(ID).unwrap();
        assert!(
            last_failure.contains("attempt 2 of 2 failed") && last_failure.ends_with("no such queue"),
            "{last_failure}"
        );
        let mut other = restarts.clone();
        assert_eq!(restarts.decide(ID, gone(1), at(11)), Decision::Leave, "pauses grow");
        let Decision::GiveUp(why) = restarts.decide(ID, gone(1), at(12)) else { panic!("given up") };
        assert!(why.ends_with("did not start in 2 attempts: no such queue"), "{why}");
        assert_eq!(restarts.last_failure(ID), None);
        // It has taken a task in between: the count begins anew.
        other.decide(ID, gone(2), at(12));
        assert_eq!(other.decide(ID, gone(2), at(15)), Decision::Start);
    }

    #[test]
    fn a_manager_that_is_away_is_waited_for() {
        let mut restarts = Restarts::new(1);
        let away = UserEndpointState { manager_connected: false, ..gone(1) };
        for time in [0, 100, 1_000_000] {
            assert_eq!(restarts.decide(ID, away, at(time)), Decision::Leave);
        }
        assert_eq!(restarts.decide(ID, gone(1), at(1_000_001)), Decision::Start);
        restarts.record_attempt(ID, StartResult::Away, at(1_000_016));
        assert_eq!(restarts.decide(ID, gone(1), at(1_000_020)), Decision::Leave);
        assert_eq!(restarts.decide(ID, gone(1), at(1_000_026)), Decision::Start, "that was no try");
        restarts.record_attempt(ID, StartResult::Ready, at(1_000_027));
        assert!(matches!(restarts.decide(ID, gone(1), at(1_000_030)), Decision::GiveUp(_)));
    }

    #[test]
    fn without_tries_nothing_is_done_and_nothing_is_remembered_of_others() {
        let mut none = Restarts::new(0);
        assert_eq!(none.decide(ID, gone(1), at(0)), Decision::Leave);
        assert_eq!(none.decide(ID, gone(1), at(100)), Decision::Leave);
        let mut restarts = Restarts::new(5);
        restarts.decide(ID, gone(1), at(0));
        assert!(restarts.last_failure(ID).is_some());
        restarts.retain(&HashSet::new());
        assert_eq!(restarts.last_failure(ID), None);
    }
}
