//! Takes delivered tasks, each once: those that the endpoint has or had already are only acknowledged.

use client::amqp::Delivery;
use wire::TaskId;

use super::intake::{Intake, RefusedTask};
use super::results::ResultLocation;
use super::stop::Phase;
use super::{Action, Interchange, State, Task};

impl Interchange {
    pub(super) fn delivered(&mut self, delivery: Delivery, actions: &mut Vec<Action>) {
        let tag = delivery.tag;
        if Some(tag.session) != self.session {
            return;
        }
        if !matches!(self.phase, Phase::Running) {
            actions.push(Action::Requeue(vec![tag]));
            return;
        }
        let task = match self.intake.identify(&delivery) {
            Ok(task) => task,
            Err(why) => {
                tracing::error!(%why, "a message without a task id was rejected");
                actions.push(Action::Reject(vec![tag]));
                return;
            }
        };
        match self.tasks.get_mut(&task) {
            Some(
                State::LookedUp { delivery: Delivery { tag: known, .. } }
                | State::Waiting { tag: known, .. }
                | State::Refused { tag: known, .. }
                | State::Assigned { tag: known, .. },
            ) => {
                if known.session == tag.session {
                    // The queue contains the task twice; one message is enough.
                    actions.push(Action::Acknowledge(vec![tag]));
                } else {
                    *known = tag;
                }
                return;
            }
            Some(State::Finished(finished)) if finished.location == ResultLocation::Writing => {
                finished.tag = Some(tag);
                return;
            }
            Some(State::Running { .. } | State::Awaited { .. } | State::Finished(_)) => {
                actions.push(Action::Acknowledge(vec![tag]));
                return;
            }
            None => {}
        }
        if self.bytes >= self.settings.bytes {
            // It was under way when we stopped consuming; the queue keeps it until there is room.
            actions.push(Action::Requeue(vec![tag]));
            return;
        }
        if self.ended.may_hold(task) {
            self.bytes += delivery.body.len();
            self.tasks.insert(task, State::LookedUp { delivery });
            actions.push(Action::LookUp(task));
        } else {
            self.accept(task, delivery, actions);
        }
        self.make_room(actions);
    }

    /// Handles the journal's answer whether this task ever began.
    pub(super) fn looked_up(&mut self, task: TaskId, known: bool, actions: &mut Vec<Action>) {
        let Some(State::LookedUp { .. }) = self.tasks.get(&task) else { return };
        let Some(State::LookedUp { delivery }) = self.tasks.remove(&task) else { return };
        self.bytes -= delivery.body.len();
        if known {
            actions.push(Action::Acknowledge(vec![delivery.tag]));
        } else if matches!(self.phase, Phase::Running) {
            self.accept(task, delivery, actions);
        } else {
            actions.push(Action::Requeue(vec![delivery.tag]));
        }
        self.make_room(actions);
    }

    /// Takes a task that this endpoint has never had.
    fn accept(&mut self, task: TaskId, delivery: Delivery, actions: &mut Vec<Action>) {
        let tag = delivery.tag;
        self.idle.received += 1;
        self.record(actions, |audit| Some(audit.received(task, Intake::function(&delivery))));
        match self.intake.admit(task, delivery) {
            Ok((function, submission)) => {
                let size = submission.body.len();
                self.bytes += size;
                self.tasks.insert(task, State::Waiting { tag, size, function });
                self.record(actions, |audit| Some(audit.execution_starts(task)));
                actions.push(Action::Submit(Box::new(Task(submission))));
                if self.cancelled.take(task) {
                    actions.push(Action::Cancel(task));
                }
            }
            Err(RefusedTask { result, why, not_permitted }) => {
                tracing::warn!(%task, %why, "the task is refused");
                self.record(actions, |audit| not_permitted.then(|| audit.not_permitted(task)));
                self.finish(task, Some(tag), result, actions);
            }
        }
    }
}
