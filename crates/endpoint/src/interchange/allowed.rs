//! A list of allowed functions that changes: tasks that wait and are no longer allowed are refused. Those that begin or run
//! go on.

use std::collections::HashSet;

use wire::{FunctionId, TaskId};

use super::intake::RefusedTask;
use super::stop::Phase;
use super::{Action, Interchange, State};

impl Interchange {
    /// From now on only these functions are allowed; `None` allows all.
    pub(super) fn allow(&mut self, functions: Option<HashSet<FunctionId>>, actions: &mut Vec<Action>) {
        self.intake.allowed = functions;
        if self.phase != Phase::Running {
            // What waits goes back to the queue, and the next run refuses it.
            return;
        }
        let waits =
            |(task, state): (&TaskId, &State)| matches!(state, State::Waiting { .. }).then_some(*task);
        let mut waiting: Vec<TaskId> = self.tasks.iter().filter_map(waits).collect();
        waiting.sort_unstable();
        for task in waiting {
            let Some(state) = self.tasks.get_mut(&task) else { continue };
            let State::Waiting { tag, size, function } = *state else { continue };
            if let Err(RefusedTask { result, why, .. }) = self.intake.allows(task, function) {
                tracing::warn!(%task, %why, "the task is refused");
                *state = State::Refused { tag, size, result };
                self.record(actions, |audit| Some(audit.not_permitted(task)));
                // It has a result when the engine has let it go.
                actions.push(Action::Cancel(task));
            }
        }
    }
}
