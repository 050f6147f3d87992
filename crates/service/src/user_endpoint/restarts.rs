//! When a user endpoint that is gone is started again for the tasks that it left, as a pure state machine.
//!
//! ```text
//! gone --a moment, its manager is there--> started --> lives: its tasks go on
//!   ^                                         |
//!   +---- a longer and longer pause ----------+--so often, and no task was taken meanwhile--> given up
//! ```
//!
//! Tasks wait for a manager however long it is away. Giving up is telling the tasks: the next submit tries anew.

use std::collections::{HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use wire::EndpointId;

use super::core::Outcome;

/// A connection that was lost is often back within this.
const SETTLE: SignedDuration = SignedDuration::from_secs(2);
/// After the first try; doubled with each further one.
const PAUSE: SignedDuration = SignedDuration::from_secs(1);
/// However many there were.
const LONGEST: SignedDuration = SignedDuration::from_secs(60);
/// When the trouble is our own.
const OURS: SignedDuration = SignedDuration::from_secs(10);

/// What is seen of a user endpoint with open tasks.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The first of the tasks in its queue.
    pub first: Option<i64>,
    /// It consumes, or was heard of lately.
    pub lives: bool,
    pub starting: bool,
    pub manager_connected: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Leave,
    Start,
    /// Its tasks end, with this reason.
    GiveUp(String),
}

/// One user endpoint that was gone.
#[derive(Clone, Debug)]
struct Case {
    first: Option<i64>,
    gone_since: Option<Timestamp>,
    tries: u32,
    not_before: Timestamp,
    /// How the last try ended.
    last: Option<String>,
}

/// What has been tried.
#[derive(Clone, Debug)]
pub struct Restarts {
    cases: HashMap<EndpointId, Case>,
    /// Tries in a row; none: user endpoints wait for the next submit.
    most: u32,
}

impl Restarts {
    pub fn new(most: u32) -> Restarts {
        Restarts { cases: HashMap::new(), most }
    }

    /// What to do about `id`, which has open tasks.
    pub fn look(&mut self, id: EndpointId, seen: Seen, now: Timestamp) -> Decision {
        if self.most == 0 {
            return Decision::Leave;
        }
        // A task that was taken since shows that it came up: what is counted is tries in a row.
        if self.cases.get(&id).is_some_and(|case| case.first != seen.first) {
            self.cases.remove(&id);
        }
        if seen.lives {
            self.cases.entry(id).and_modify(|case| case.gone_since = None);
            return Decision::Leave;
        }
        if seen.starting {
            return Decision::Leave;
        }
        let new = Case { first: seen.first, gone_since: None, tries: 0, not_before: now, last: None };
        let case = self.cases.entry(id).or_insert(new);
        let since = *case.gone_since.get_or_insert(now);
        if !seen.manager_connected || now < since + SETTLE || now < case.not_before {
            return Decision::Leave;
        }
        if case.tries < self.most {
            case.tries += 1;
            // Until it is told how that went.
            case.not_before = now + OURS;
            return Decision::Start;
        }
        let (tries, last) = (case.tries, case.last.take().unwrap_or_default());
        self.cases.remove(&id);
        Decision::GiveUp(format!("User endpoint {id} was started again {tries} times in vain: {last}"))
    }

    /// How a try ended.
    pub fn tried(&mut self, id: EndpointId, outcome: Outcome, now: Timestamp) {
        let Some(case) = self.cases.get_mut(&id) else { return };
        let doubled = PAUSE * (1 << case.tries.saturating_sub(1).min(16));
        case.not_before = now + doubled.min(LONGEST);
        case.last = Some(match outcome {
            Outcome::Ready => "it came up and took no task".to_owned(),
            Outcome::Refused(why) => why,
            Outcome::Silent => "nothing was heard of it".to_owned(),
            Outcome::TooMany => "its owner has as many user endpoints as one may have".to_owned(),
            // Nobody has tried.
            Outcome::Away | Outcome::Broken => {
                case.tries = case.tries.saturating_sub(1);
                case.not_before = now + OURS;
                return;
            }
        });
    }

    /// Forgets all but `ids`: the others have no open tasks.
    pub fn only(&mut self, ids: &HashSet<EndpointId>) {
        self.cases.retain(|id, _| ids.contains(id));
    }

    /// What its owner should know: that it is being started again, how often that was tried, and why in vain.
    pub fn told(&self, id: EndpointId) -> Option<String> {
        let case = self.cases.get(&id)?;
        case.gone_since?;
        let so_far = match (&case.last, case.tries) {
            (Some(last), tries) => format!(", {tries} of {} times so far; last: {last}", self.most),
            (None, _) => String::new(),
        };
        Some(format!("It is gone and has open tasks: its manager is told to start it again{so_far}"))
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

    fn gone(first: i64) -> Seen {
        Seen { first: Some(first), lives: false, starting: false, manager_connected: true }
    }

    #[test]
    fn one_that_is_gone_is_started_after_a_moment() {
        let mut restarts = Restarts::new(2);
        assert_eq!(restarts.look(ID, gone(1), at(0)), Decision::Leave);
        assert_eq!(restarts.look(ID, gone(1), at(1)), Decision::Leave);
        let lives = Seen { lives: true, ..gone(1) };
        assert_eq!(restarts.look(ID, lives, at(2)), Decision::Leave, "it was only cut off");
        assert_eq!(restarts.look(ID, gone(1), at(4)), Decision::Leave);
        assert_eq!(restarts.look(ID, gone(1), at(6)), Decision::Start);
        let starting = Seen { starting: true, ..gone(1) };
        assert_eq!(restarts.look(ID, starting, at(30)), Decision::Leave);
        assert!(restarts.told(ID).is_some(), "its owner may know");
        assert_eq!(restarts.look(ID, lives, at(31)), Decision::Leave);
        assert_eq!(restarts.told(ID), None, "it is there again");
    }

    #[test]
    fn tries_are_counted_until_a_task_is_taken() {
        let mut restarts = Restarts::new(2);
        restarts.look(ID, gone(1), at(0));
        for (time, expected) in [(3, Decision::Start), (10, Decision::Start)] {
            assert_eq!(restarts.look(ID, gone(1), at(time)), expected);
            restarts.tried(ID, Outcome::Refused("no such queue".into()), at(time));
        }
        let told = restarts.told(ID).unwrap();
        assert!(told.contains("2 of 2 times") && told.ends_with("no such queue"), "{told}");
        let mut other = restarts.clone();
        assert_eq!(restarts.look(ID, gone(1), at(11)), Decision::Leave, "pauses grow");
        let Decision::GiveUp(why) = restarts.look(ID, gone(1), at(12)) else { panic!("given up") };
        assert!(why.ends_with("again 2 times in vain: no such queue"), "{why}");
        assert_eq!(restarts.told(ID), None);
        // It has taken a task in between: the count begins anew.
        other.look(ID, gone(2), at(12));
        assert_eq!(other.look(ID, gone(2), at(15)), Decision::Start);
    }

    #[test]
    fn a_manager_that_is_away_is_waited_for() {
        let mut restarts = Restarts::new(1);
        let away = Seen { manager_connected: false, ..gone(1) };
        for time in [0, 100, 1_000_000] {
            assert_eq!(restarts.look(ID, away, at(time)), Decision::Leave);
        }
        assert_eq!(restarts.look(ID, gone(1), at(1_000_001)), Decision::Start);
        restarts.tried(ID, Outcome::Away, at(1_000_016));
        assert_eq!(restarts.look(ID, gone(1), at(1_000_020)), Decision::Leave);
        assert_eq!(restarts.look(ID, gone(1), at(1_000_026)), Decision::Start, "that was no try");
        restarts.tried(ID, Outcome::Ready, at(1_000_027));
        assert!(matches!(restarts.look(ID, gone(1), at(1_000_030)), Decision::GiveUp(_)));
    }

    #[test]
    fn without_tries_nothing_is_done_and_nothing_is_remembered_of_others() {
        let mut none = Restarts::new(0);
        assert_eq!(none.look(ID, gone(1), at(0)), Decision::Leave);
        assert_eq!(none.look(ID, gone(1), at(100)), Decision::Leave);
        let mut restarts = Restarts::new(5);
        restarts.look(ID, gone(1), at(0));
        assert!(restarts.told(ID).is_some());
        restarts.only(&HashSet::new());
        assert_eq!(restarts.told(ID), None);
    }
}
