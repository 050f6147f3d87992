//! How tasks end without a result: by failed attempts, in bad state, and when the engine stops.

use std::sync::Arc;
use std::time::Duration;

use wire::TaskId;

use super::action::Action;
use super::loss::{Failure, Loss};
use super::tasks::Begun;
use super::{Core, Phase};

impl Core {
    /// An attempt came to nothing: try again if allowed, else end the task so.
    pub(super) fn lost(&mut self, id: TaskId, loss: Loss, now: Duration, actions: &mut Vec<Action>) {
        let retry = self.phase == Phase::Running;
        let Some(task) = self.tasks.get_mut(id) else { return };
        if task.cancelled {
            self.tasks.remove(id);
            actions.push(Action::Cancel(id));
            return;
        }
        task.losses.push(loss);
        if retry && task.losses.len() <= self.rules.max_retries as usize {
            task.began = now;
            self.tasks.wait_again(id);
        } else {
            self.fail(id, actions);
        }
    }

    pub(super) fn fail(&mut self, id: TaskId, actions: &mut Vec<Action>) {
        if let Some(task) = self.tasks.remove(id) {
            let failure = Failure { attempts: task.losses, began: task.began };
            actions.push(Action::Fail { task: id, failure });
        }
    }

    pub(super) fn unstarted(&mut self, id: TaskId, actions: &mut Vec<Action>) {
        if self.tasks.get(id).is_some_and(|task| task.cancelled) {
            self.tasks.remove(id);
            actions.push(Action::Cancel(id));
        } else {
            self.tasks.wait_again(id);
        }
    }

    pub(super) fn judge(&mut self, actions: &mut Vec<Action>) {
        if self.phase != Phase::Running {
            return;
        }
        let Some(text) = self.blocks.verdict() else { return };
        let cause: Arc<str> = text.into();
        self.phase = Phase::Bad { cause: Arc::clone(&cause) };
        for id in self.tasks.select(|_| true) {
            let executor = Arc::clone(&self.rules.executor);
            if let Some(task) = self.tasks.get_mut(id) {
                task.losses.push(Loss::BadState { executor, cause: Arc::clone(&cause) });
            }
            self.fail(id, actions);
        }
        actions.push(Action::Bad(cause.to_string()));
    }

    pub(super) fn stop(&mut self, until: Duration, actions: &mut Vec<Action>) {
        match &mut self.phase {
            Phase::Stopping { until: before } => {
                *before = until.min(*before);
                return;
            }
            phase => *phase = Phase::Stopping { until },
        }
        let back = self.tasks.select(|task| task.begun == Begun::No);
        for id in &back {
            self.tasks.remove(*id);
        }
        if !back.is_empty() {
            actions.push(Action::Return(back));
        }
    }

    /// The grace is over: what has begun and not ended ends with its node's loss.
    pub(super) fn fail_all_lost(&mut self, actions: &mut Vec<Action>) {
        for id in self.tasks.select(|_| true) {
            let Some(task) = self.tasks.get_mut(id) else { continue };
            if task.cancelled {
                self.tasks.remove(id);
                actions.push(Action::Cancel(id));
                continue;
            }
            if let Some(node) = task.node.clone() {
                task.losses.push(Loss::Manager { node });
            }
            self.fail(id, actions);
        }
    }
}
