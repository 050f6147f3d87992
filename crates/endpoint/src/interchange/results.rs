//! Handles results: writes them to the spool, publishes them, and removes them once the broker has confirmed them.

use client::amqp::{PublishStatus, Tag};
use wire::TaskId;

use super::{Action, Interchange, State};

/// A result that the broker has not confirmed.
#[derive(Debug)]
pub(super) struct Finished {
    /// The message of a task that ended without having begun: acknowledged once the result is kept.
    pub(super) tag: Option<Tag>,
    pub(super) location: ResultLocation,
    pub(super) sending: SendState,
}

/// Where the bytes of a result are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ResultLocation {
    /// Being written to the spool.
    Writing,
    Spool,
    /// In memory, because the spool could not be written.
    Memory(Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendState {
    /// Waits to be published, or is about to.
    Due,
    /// Being read from the spool to be published.
    Loading,
    /// Published in this session.
    Sent(u32),
    /// Not accepted by the broker; published again at the next heartbeat.
    Later,
}

impl Interchange {
    /// Writes a task's result to the spool.
    pub(super) fn finish(
        &mut self,
        task: TaskId,
        tag: Option<Tag>,
        result: Vec<u8>,
        actions: &mut Vec<Action>,
    ) {
        let finished = Finished { tag, location: ResultLocation::Writing, sending: SendState::Due };
        self.tasks.insert(task, State::Finished(finished));
        self.record(actions, |audit| Some(audit.execution_ends(task)));
        actions.push(Action::Keep { task, result });
    }

    pub(super) fn kept(&mut self, task: TaskId, kept: Result<Vec<u8>, Vec<u8>>, actions: &mut Vec<Action>) {
        let Some(State::Finished(finished)) = self.tasks.get_mut(&task) else { return };
        let room = self.in_flight < self.settings.in_flight;
        let result = match kept {
            Ok(result) => {
                finished.location = ResultLocation::Spool;
                if let Some(tag) = finished.tag.take() {
                    actions.push(Action::Acknowledge(vec![tag]));
                }
                result
            }
            Err(result) => {
                finished.location = ResultLocation::Memory(result.clone());
                result
            }
        };
        match self.session {
            Some(session) if room => {
                finished.sending = SendState::Sent(session);
                self.in_flight += 1;
                actions.push(Action::Publish { session, task, result });
            }
            _ => self.due.push_back(task),
        }
    }

    /// Publishes waiting results, up to the limit.
    pub(super) fn send_due(&mut self, actions: &mut Vec<Action>) {
        let Some(session) = self.session else { return };
        while self.in_flight < self.settings.in_flight {
            let Some(task) = self.due.pop_front() else { return };
            let Some(State::Finished(finished)) = self.tasks.get_mut(&task) else { continue };
            match &finished.location {
                ResultLocation::Spool => {
                    finished.sending = SendState::Loading;
                    actions.push(Action::Load(task));
                }
                ResultLocation::Memory(result) => {
                    finished.sending = SendState::Sent(session);
                    actions.push(Action::Publish { session, task, result: result.clone() });
                }
                ResultLocation::Writing => continue,
            }
            self.in_flight += 1;
        }
    }

    pub(super) fn loaded(&mut self, task: TaskId, result: Option<Vec<u8>>, actions: &mut Vec<Action>) {
        let Some(State::Finished(finished)) = self.tasks.get_mut(&task) else { return };
        match (self.session, result) {
            (Some(session), Some(result)) => {
                finished.sending = SendState::Sent(session);
                actions.push(Action::Publish { session, task, result });
            }
            (None, Some(_)) => {
                finished.sending = SendState::Due;
                self.in_flight -= 1;
                self.due.push_back(task);
            }
            (_, None) => {
                tracing::error!(%task, "a result in the spool can't be read; the next start reports the task");
                self.in_flight -= 1;
                self.tasks.remove(&task);
                self.unreported.remove(&task);
                self.ended.insert(task);
                self.send_due(actions);
            }
        }
    }

    pub(super) fn settled(&mut self, task: TaskId, status: &PublishStatus, actions: &mut Vec<Action>) {
        let Some(State::Finished(finished)) = self.tasks.get_mut(&task) else { return };
        if !matches!(finished.sending, SendState::Sent(session) if Some(session) == self.session) {
            return;
        }
        self.in_flight -= 1;
        match status {
            PublishStatus::Confirmed => {
                // Only a result that was never written to the spool still has its message.
                if let Some(tag) = finished.tag.take() {
                    actions.push(Action::Acknowledge(vec![tag]));
                }
                self.tasks.remove(&task);
                self.unreported.remove(&task);
                self.ended.insert(task);
                self.idle.delivered += 1;
                actions.push(Action::JournalEnded(vec![task]));
            }
            PublishStatus::Returned(_) | PublishStatus::Refused => {
                tracing::warn!(%task, outcome = ?status, "the broker did not accept the result; it is kept and sent again");
                finished.sending = SendState::Later;
            }
        }
        self.send_due(actions);
    }
}
