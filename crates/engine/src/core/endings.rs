//! How tasks end without a result: by failed attempts, in bad state, and when the engine stops.

use std::sync::Arc;
use std::time::Duration;

use wire::TaskId;

use super::action::Action;
use super::error_texts::{AttemptFailure, TaskFailure};
use super::tasks::BeginRecord;
use super::{Core, Phase};

impl Core {
    /// An attempt has failed: tries again if allowed, otherwise ends the task.
    pub(super) fn retry_or_fail(
        &mut self,
        id: TaskId,
        failure: AttemptFailure,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let retry = self.phase == Phase::Running;
        let Some(task) = self.tasks.get_mut(id) else { return };
        if task.cancelled {
            self.tasks.remove(id);
            actions.push(Action::Cancel(id));
            return;
        }
        task.failed_attempts.push(failure);
        if retry && task.failed_attempts.len() <= self.rules.max_retries as usize {
            task.began = now;
            self.tasks.requeue(id);
        } else {
            self.fail(id, actions);
        }
    }

    pub(super) fn fail(&mut self, id: TaskId, actions: &mut Vec<Action>) {
        if let Some(task) = self.tasks.remove(id) {
            let failure = TaskFailure { attempts: task.failed_attempts, began: task.began };
            actions.push(Action::Fail { task: id, failure });
        }
    }

    pub(super) fn return_to_queue(&mut self, id: TaskId, actions: &mut Vec<Action>) {
        if self.tasks.get(id).is_some_and(|task| task.cancelled) {
            self.tasks.remove(id);
            actions.push(Action::Cancel(id));
        } else {
            self.tasks.requeue(id);
        }
    }

    pub(super) fn check_bad_state(&mut self, actions: &mut Vec<Action>) {
        if self.phase != Phase::Running {
            return;
        }
        let Some(text) = self.blocks.bad_state_text() else { return };
        let cause: Arc<str> = text.into();
        self.phase = Phase::BadState { cause: Arc::clone(&cause) };
        for id in self.tasks.select(|_| true) {
            let executor = Arc::clone(&self.rules.executor);
            if let Some(task) = self.tasks.get_mut(id) {
                task.failed_attempts.push(AttemptFailure::BadState { executor, cause: Arc::clone(&cause) });
            }
            self.fail(id, actions);
        }
        actions.push(Action::ReportBadState(cause.to_string()));
    }

    pub(super) fn stop(&mut self, until: Duration, actions: &mut Vec<Action>) {
        match &mut self.phase {
            Phase::Stopping { until: before } => {
                *before = until.min(*before);
                return;
            }
            phase => *phase = Phase::Stopping { until },
        }
        let back = self.tasks.select(|task| task.begun == BeginRecord::None);
        for id in &back {
            self.tasks.remove(*id);
        }
        if !back.is_empty() {
            actions.push(Action::Return(back));
        }
    }

    /// The grace period is over: tasks that have not ended fail as lost with their nodes.
    pub(super) fn fail_unfinished(&mut self, actions: &mut Vec<Action>) {
        for id in self.tasks.select(|_| true) {
            let Some(task) = self.tasks.get_mut(id) else { continue };
            if task.cancelled {
                self.tasks.remove(id);
                actions.push(Action::Cancel(id));
                continue;
            }
            if let Some(node) = task.node.clone() {
                task.failed_attempts.push(AttemptFailure::NodeLost { node });
            }
            self.fail(id, actions);
        }
    }
}
