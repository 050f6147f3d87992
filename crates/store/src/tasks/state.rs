//! The state machine of one task. Pure.
//!
//! ```text
//! waiting --the endpoint acknowledged it--> taken
//!    |                                        |
//!    +------------ its result came -----------+--> ended (succeeded or failed)
//!                                                    |
//!                                                    +-- its result's time is over --> expired
//! ```
//!
//! A result may come before the acknowledgement: endpoints acknowledge in batches. The first result ends the task;
//! every later event but its expiry is refused and changes nothing.

use jiff::Timestamp;
use wire::message::TaskState;

#[derive(Clone, Debug, PartialEq)]
pub enum State {
    Open {
        holder: TaskHolder,
        progress: Option<TaskState>,
    },
    Ended {
        outcome: Outcome,
        at: Timestamp,
    },
    /// It has ended, and its result was deleted.
    Expired {
        at: Timestamp,
    },
}

/// Who holds an open task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskHolder {
    /// The service: the task is in the endpoint's queue.
    Waiting,
    /// The endpoint: it has acknowledged the task, which is never sent again.
    Taken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Succeeded,
    Failed,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Acknowledged,
    /// The endpoint reports its progress.
    Reported(TaskState),
    Result {
        outcome: Outcome,
        at: Timestamp,
    },
    /// The retention time of the result is over.
    Expire,
}

/// The event is not allowed in this state; nothing changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the task has ended")]
    Ended,
    #[error("the task has not ended")]
    Open,
}

impl State {
    pub const NEW: State = State::Open { holder: TaskHolder::Waiting, progress: None };

    pub fn apply(self, event: Event) -> Result<State, Refused> {
        match (self, event) {
            (State::Open { progress, .. }, Event::Acknowledged) => {
                Ok(State::Open { holder: TaskHolder::Taken, progress })
            }
            (State::Open { holder, .. }, Event::Reported(state)) => {
                Ok(State::Open { holder, progress: Some(state) })
            }
            (State::Open { .. }, Event::Result { outcome, at }) => Ok(State::Ended { outcome, at }),
            (State::Open { .. }, Event::Expire) => Err(Refused::Open),
            (State::Ended { at, .. }, Event::Expire) => Ok(State::Expired { at }),
            (State::Ended { .. } | State::Expired { .. }, _) => Err(Refused::Ended),
        }
    }

    /// The status string that clients show.
    pub fn status(&self, endpoint_online: bool) -> TaskState {
        match self {
            State::Open { progress: Some(state), .. } => *state,
            // Our endpoints acknowledge a task when it begins. Upstream's do when their executor has it, and never say
            // when it begins: they may be a little ahead of the truth, and no task that runs is said to wait.
            State::Open { holder: TaskHolder::Taken, progress: None } => TaskState::Running,
            State::Open { holder: TaskHolder::Waiting, progress: None } if endpoint_online => {
                TaskState::Received
            }
            State::Open { holder: TaskHolder::Waiting, progress: None } => TaskState::WaitingForEp,
            State::Ended { outcome: Outcome::Succeeded, .. } => TaskState::Success,
            State::Ended { outcome: Outcome::Failed, .. } | State::Expired { .. } => TaskState::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::UNIX_EPOCH;
    const TAKEN: State = State::Open { holder: TaskHolder::Taken, progress: None };
    const WON: State = State::Ended { outcome: Outcome::Succeeded, at: AT };
    const LOST: State = State::Ended { outcome: Outcome::Failed, at: AT };
    const GONE: State = State::Expired { at: AT };

    fn result(outcome: Outcome) -> Event {
        Event::Result { outcome, at: AT }
    }

    /// Every state with every event: what is not listed as legal here is refused.
    #[test]
    fn every_transition() {
        let progress = |holder| State::Open { holder, progress: Some(TaskState::Running) };
        let running = || Event::Reported(TaskState::Running);
        let states =
            [State::NEW, TAKEN, progress(TaskHolder::Waiting), progress(TaskHolder::Taken), WON, LOST, GONE];
        let events = [
            Event::Acknowledged,
            running(),
            result(Outcome::Succeeded),
            result(Outcome::Failed),
            Event::Expire,
        ];
        let legal = [
            (State::NEW, Event::Acknowledged, TAKEN),
            (State::NEW, running(), progress(TaskHolder::Waiting)),
            (State::NEW, result(Outcome::Succeeded), WON),
            (State::NEW, result(Outcome::Failed), LOST),
            (TAKEN, Event::Acknowledged, TAKEN),
            (TAKEN, running(), progress(TaskHolder::Taken)),
            (TAKEN, result(Outcome::Succeeded), WON),
            (TAKEN, result(Outcome::Failed), LOST),
            (progress(TaskHolder::Waiting), Event::Acknowledged, progress(TaskHolder::Taken)),
            (progress(TaskHolder::Waiting), running(), progress(TaskHolder::Waiting)),
            (progress(TaskHolder::Waiting), result(Outcome::Succeeded), WON),
            (progress(TaskHolder::Waiting), result(Outcome::Failed), LOST),
            (progress(TaskHolder::Taken), Event::Acknowledged, progress(TaskHolder::Taken)),
            (progress(TaskHolder::Taken), running(), progress(TaskHolder::Taken)),
            (progress(TaskHolder::Taken), result(Outcome::Succeeded), WON),
            (progress(TaskHolder::Taken), result(Outcome::Failed), LOST),
            (WON, Event::Expire, GONE),
            (LOST, Event::Expire, GONE),
        ];
        for state in &states {
            for event in &events {
                let next = legal.iter().find(|(from, by, _)| (from, by) == (state, event));
                let expected = match (next, state) {
                    (Some((_, _, next)), _) => Ok(next.clone()),
                    (None, State::Open { .. }) => Err(Refused::Open),
                    (None, _) => Err(Refused::Ended),
                };
                assert_eq!(state.clone().apply(event.clone()), expected, "{state:?} {event:?}");
            }
        }
    }

    #[test]
    fn status_strings() {
        assert_eq!(State::NEW.status(false), TaskState::WaitingForEp);
        assert_eq!(State::NEW.status(true), TaskState::Received);
        assert_eq!(TAKEN.status(true), TaskState::Running);
        assert_eq!(TAKEN.status(false), TaskState::Running);
        assert_eq!(WON.status(false), TaskState::Success);
        assert_eq!(LOST.status(true), TaskState::Failed);
        assert_eq!(GONE.status(true), TaskState::Failed);
    }
}
