//! Stops a run: takes no new tasks, returns those that have not begun, gives running tasks their grace, publishes results or
//! leaves them in the spool.

use std::time::Duration;

use super::{Action, Interchange, ResultLocation, SendState, State};
use wire::TaskId;

/// The time limit of a stop, beyond the tasks' grace.
const BEYOND_GRACE: Duration = Duration::from_secs(5);
/// How long an endpoint without a working block takes tasks, to fail them with the reason.
const FAILING_TASKS: Duration = Duration::from_secs(3);
/// The time limit of a hurried stop: results must be kept, and the engine must end.
pub(super) const HURRIED: Duration = Duration::from_secs(2);
/// The same after the end of the manager, which promises that its user endpoints are gone within 2 s.
pub(super) const ORPHANED: Duration = Duration::from_secs(1);

/// The phase of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    Stopping {
        engine: EngineState,
        /// The stop does not wait for the broker.
        hurried: bool,
    },
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EngineState {
    Ending,
    Ended,
}

impl Interchange {
    pub(super) fn begin_stop(&mut self, actions: &mut Vec<Action>) {
        if self.phase != Phase::Running {
            return;
        }
        self.phase = Phase::Stopping { engine: EngineState::Ending, hurried: false };
        actions.push(Action::Consume(false));
        actions.push(Action::StopEngine { grace: self.settings.grace });
        actions.push(Action::EndWithin(self.settings.grace + BEYOND_GRACE));
    }

    /// The engine fails every task with the reason. Tasks that are in the queue by now get it too, before the endpoint ends.
    pub(super) fn engine_failed(&self, actions: &mut Vec<Action>) {
        if self.phase == Phase::Running {
            actions.push(Action::StopWithin(FAILING_TASKS));
        }
    }

    /// Stops without a grace period for tasks, and without waiting for the broker.
    pub(super) fn hurry(&mut self, limit: Duration, actions: &mut Vec<Action>) {
        self.begin_stop(actions);
        if let Phase::Stopping { engine, hurried: false } = self.phase {
            self.phase = Phase::Stopping { engine, hurried: true };
            actions.push(Action::StopEngine { grace: Duration::ZERO });
            actions.push(Action::EndWithin(limit));
        }
    }

    /// Handles tasks that the engine returns: they never began.
    pub(super) fn returned(&mut self, tasks: Vec<TaskId>, actions: &mut Vec<Action>) {
        let mut tags = Vec::new();
        let mut written = Vec::new();
        for task in tasks {
            match self.tasks.get(&task) {
                Some(State::Waiting { tag, size, .. } | State::Refused { tag, size, .. }) => {
                    tags.push(*tag);
                    self.bytes -= size;
                }
                Some(State::Assigned { tag, size }) => {
                    tags.push(*tag);
                    self.bytes -= size;
                    written.push(task);
                }
                // It is recorded as begun and its message is acknowledged: the engine must report its end.
                Some(
                    State::LookedUp { .. }
                    | State::Running { .. }
                    | State::Awaited { .. }
                    | State::Finished(_),
                )
                | None => continue,
            }
            self.tasks.remove(&task);
            self.record(actions, |audit| audit.returned(task));
        }
        if !written.is_empty() {
            actions.push(Action::JournalReturned(written));
        }
        if !tags.is_empty() {
            actions.push(Action::Requeue(tags));
        }
    }

    pub(super) fn engine_stopped(&mut self, actions: &mut Vec<Action>) {
        self.begin_stop(actions);
        if let Phase::Stopping { hurried, .. } = self.phase {
            self.phase = Phase::Stopping { engine: EngineState::Ended, hurried };
        }
        let left = |(task, state): (&TaskId, &State)| match state {
            State::Waiting { .. } | State::Refused { .. } | State::Assigned { .. } => Some(*task),
            State::LookedUp { .. } | State::Running { .. } | State::Awaited { .. } | State::Finished(_) => {
                None
            }
        };
        let left: Vec<_> = self.tasks.iter().filter_map(left).collect();
        self.returned(left, actions);
    }

    pub(super) fn stop_timed_out(&mut self, actions: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Stopping { .. }) {
            tracing::warn!(
                "ending without waiting any longer; unconfirmed results are sent at the next start"
            );
            self.end(actions);
        }
    }

    /// Ends the run when there is nothing to wait for.
    pub(super) fn end_when_done(&mut self, actions: &mut Vec<Action>) {
        let Phase::Stopping { engine: EngineState::Ended, hurried } = self.phase else { return };
        // A result in the spool is safe without the broker; a result in memory needs the broker.
        let safe = |state: &State| match state {
            State::Finished(finished) => match (&finished.location, self.session, hurried) {
                (ResultLocation::Writing, ..) | (ResultLocation::Memory(_), Some(_), false) => false,
                (ResultLocation::Memory(_), ..) => true,
                (ResultLocation::Spool, Some(_), false) => finished.sending == SendState::Later,
                (ResultLocation::Spool, ..) => true,
            },
            _ => true,
        };
        if self.tasks.values().all(safe) {
            self.end(actions);
        }
    }

    fn end(&mut self, actions: &mut Vec<Action>) {
        if let Some(session) = self.session {
            actions.push(Action::Heartbeat { session, active: false });
        }
        actions.push(Action::End);
        self.phase = Phase::Ended;
    }
}
