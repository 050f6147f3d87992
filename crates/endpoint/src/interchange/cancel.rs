//! Cancels tasks: the engine ends those that it has; a task that has not been delivered yet is ended when it comes.

use std::collections::{HashSet, VecDeque};

use wire::TaskId;

use super::{Action, Interchange, State};

/// How many cancellations may wait for their tasks. Beyond that the oldest is dropped, and its task runs.
const REMEMBERED: usize = 16_384;

/// Tasks that were cancelled before they were delivered.
#[derive(Debug, Default)]
pub(super) struct Cancelled {
    known: HashSet<TaskId>,
    order: VecDeque<TaskId>,
}

impl Cancelled {
    fn remember(&mut self, task: TaskId) {
        if self.known.insert(task) {
            self.order.push_back(task);
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    /// Whether this task was cancelled; removes it.
    pub(super) fn take(&mut self, task: TaskId) -> bool {
        // Its entry in `order` stays until it is the oldest, which does no harm.
        self.known.remove(&task)
    }
}

impl Interchange {
    pub(super) fn cancel(&mut self, tasks: Vec<TaskId>, actions: &mut Vec<Action>) {
        for task in tasks {
            match self.tasks.get(&task) {
                Some(State::Waiting { .. } | State::Assigned { .. } | State::Running { .. }) => {
                    actions.push(Action::Cancel(task));
                }
                // It is being refused, has ended, or an earlier run has it.
                Some(State::Refused { .. } | State::Awaited { .. } | State::Finished(_)) => {}
                // It has not been delivered, or it ended earlier; the journal is not asked for that.
                Some(State::LookedUp { .. }) | None => self.cancelled.remember(task),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_waiting_cancellations_is_limited() {
        let mut cancelled = Cancelled::default();
        let task = |number: usize| TaskId::from_uuid(uuid::Uuid::from_u128(number as u128));
        for number in 0..=REMEMBERED {
            cancelled.remember(task(number));
        }
        assert!(!cancelled.take(task(0)), "the oldest is forgotten");
        assert!(cancelled.take(task(1)));
        assert!(!cancelled.take(task(1)), "asked once");
    }
}
