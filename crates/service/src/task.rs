//! The life of one task, as a pure state machine.
//!
//! ```text
//! waiting --the endpoint acknowledged it--> taken
//!    |                                        |
//!    +------------ its result came -----------+--> ended (succeeded or failed), and nothing changes any more
//! ```
//!
//! A result may come before the acknowledgement: endpoints acknowledge in batches. The first result ends the task;
//! every later event is refused and changes nothing.

use jiff::Timestamp;
use wire::message::TaskState;

#[derive(Clone, Debug, PartialEq)]
pub enum State {
    Open { place: Place, progress: Option<TaskState> },
    Ended { outcome: Outcome, at: Timestamp },
}

/// Who holds an open task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The service: it lies in the endpoint's queue.
    Waiting,
    /// The endpoint: it has acknowledged the task and is never sent it again.
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
    /// The endpoint says how far it is.
    Reported(TaskState),
    Result {
        outcome: Outcome,
        at: Timestamp,
    },
}

/// The task had ended before; the event changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the task has ended")]
pub struct Ended;

impl State {
    pub const NEW: State = State::Open { place: Place::Waiting, progress: None };

    pub fn apply(self, event: Event) -> Result<State, Ended> {
        let State::Open { place, progress } = self else { return Err(Ended) };
        Ok(match event {
            Event::Acknowledged => State::Open { place: Place::Taken, progress },
            Event::Reported(state) => State::Open { place, progress: Some(state) },
            Event::Result { outcome, at } => State::Ended { outcome, at },
        })
    }

    /// The status string that clients show.
    pub fn status(&self, endpoint_online: bool) -> TaskState {
        match self {
            State::Open { progress: Some(state), .. } => *state,
            State::Open { place: Place::Taken, progress: None } => TaskState::WaitingForNodes,
            State::Open { place: Place::Waiting, progress: None } if endpoint_online => TaskState::Received,
            State::Open { place: Place::Waiting, progress: None } => TaskState::WaitingForEp,
            State::Ended { outcome: Outcome::Succeeded, .. } => TaskState::Success,
            State::Ended { outcome: Outcome::Failed, .. } => TaskState::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::UNIX_EPOCH;
    const TAKEN: State = State::Open { place: Place::Taken, progress: None };
    const WON: State = State::Ended { outcome: Outcome::Succeeded, at: AT };
    const LOST: State = State::Ended { outcome: Outcome::Failed, at: AT };

    fn result(outcome: Outcome) -> Event {
        Event::Result { outcome, at: AT }
    }

    #[test]
    fn every_transition() {
        let running = || Event::Reported(TaskState::Running);
        let table = [
            (State::NEW, Event::Acknowledged, Ok(TAKEN)),
            (
                State::NEW,
                running(),
                Ok(State::Open { place: Place::Waiting, progress: Some(TaskState::Running) }),
            ),
            (State::NEW, result(Outcome::Succeeded), Ok(WON)),
            (State::NEW, result(Outcome::Failed), Ok(LOST)),
            (TAKEN, Event::Acknowledged, Ok(TAKEN)),
            (TAKEN, running(), Ok(State::Open { place: Place::Taken, progress: Some(TaskState::Running) })),
            (TAKEN, result(Outcome::Succeeded), Ok(WON)),
            (TAKEN, result(Outcome::Failed), Ok(LOST)),
            (WON, Event::Acknowledged, Err(Ended)),
            (WON, running(), Err(Ended)),
            (WON, result(Outcome::Failed), Err(Ended)),
            (LOST, Event::Acknowledged, Err(Ended)),
            (LOST, running(), Err(Ended)),
            (LOST, result(Outcome::Succeeded), Err(Ended)),
        ];
        for (state, event, expected) in table {
            assert_eq!(state.clone().apply(event.clone()), expected, "{state:?} {event:?}");
        }
    }

    #[test]
    fn status_strings() {
        assert_eq!(State::NEW.status(false), TaskState::WaitingForEp);
        assert_eq!(State::NEW.status(true), TaskState::Received);
        assert_eq!(TAKEN.status(true), TaskState::WaitingForNodes);
        assert_eq!(WON.status(false), TaskState::Success);
        assert_eq!(LOST.status(true), TaskState::Failed);
    }
}
