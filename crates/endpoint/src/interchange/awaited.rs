//! Waits for results of an earlier run that may only be suspended, on another host: it writes them to the spool. After a time
//! limit its tasks count as lost.

use wire::TaskId;

use super::results::{Finished, ResultLocation, SendState};
use super::{Action, Interchange, State};

impl Interchange {
    /// Whether an earlier run's results are awaited.
    pub(crate) fn awaits(&self) -> bool {
        self.tasks.values().any(|state| matches!(state, State::Awaited { .. }))
    }

    pub(super) fn look_for_results(&self, last: bool, actions: &mut Vec<Action>) {
        let awaited = self.awaited();
        if !awaited.is_empty() {
            actions.push(Action::LookForResults { tasks: awaited, last });
        }
    }

    pub(super) fn results_found(&mut self, tasks: Vec<TaskId>, last: bool, actions: &mut Vec<Action>) {
        for task in tasks {
            if let Some(state @ State::Awaited { .. }) = self.tasks.get_mut(&task) {
                *state = State::Finished(Finished {
                    tag: None,
                    location: ResultLocation::Spool,
                    sending: SendState::Due,
                });
                self.due.push_back(task);
            }
        }
        self.send_due(actions);
        if !last && !self.awaits() {
            // All results have come: that run's file is not needed any more.
            actions.push(Action::LookForResults { tasks: Vec::new(), last: true });
        }
        for task in if last { self.awaited() } else { Vec::new() } {
            if let Some(State::Awaited { lost }) = self.tasks.remove(&task) {
                self.finish(task, None, lost, actions);
            }
        }
    }

    fn awaited(&self) -> Vec<TaskId> {
        let awaited = self.tasks.iter().filter(|(_, state)| matches!(state, State::Awaited { .. }));
        let mut awaited: Vec<_> = awaited.map(|(task, _)| *task).collect();
        awaited.sort_unstable();
        awaited
    }
}
