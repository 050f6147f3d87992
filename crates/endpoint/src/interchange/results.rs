//! Results on their way out: into the spool, to the broker, and out of the spool once the broker has confirmed them.

use client::amqp::{PublishStatus, Tag};
use wire::TaskId;

use super::{Action, Interchange, State};

/// A result that the broker has not confirmed.
#[derive(Debug)]
pub(super) struct Finished {
    /// The message, when the task ended without having begun: acknowledged once the result is kept.
    pub(super) tag: Option<Tag>,
    pub(super) place: ResultLocation,
    pub(super) sending: SendState,
}

/// Where the bytes of a result are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ResultLocation {
    /// On their way to the spool.
    Writing,
    Spool,
    /// Here, because the spool could not be written.
    Memory(Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendState {
    /// In the queue of results to send, or on its way into it.
    Due,
    /// Being read from the spool to be sent.
    Loading,
    /// Sent in this session.
    Sent(u32),
    /// Given back by the broker; tried again with the next heartbeat.
    Later,
}

impl Interchange {
    /// A task has its result: into the spool with it.
    pub(super) fn finish(
        &mut self,
        task: TaskId,
        tag: Option<Tag>,
        result: Vec<u8>,
        actions: &mut Vec<Action>,
    ) {
        let finished = Finished { tag, place: ResultLocation::Writing, sending: SendState::Due };
        self.tasks.insert(task, State::Finished(finished));
        actions.push(Action::Keep { task, result });
    }

    pub(super) fn kept(&mut self, task: TaskId, kept: Result<Vec<u8>, Vec<u8>>, actions: &mut Vec<Action>) {
        let Some(State::Finished(finished)) = self.tasks.get_mut(&task) else { return };
        let room = self.in_flight < self.settings.in_flight;
        let result = match kept {
            Ok(result) => {
                finished.place = ResultLocation::Spool;
                if let Some(tag) = finished.tag.take() {
                    actions.push(Action::Acknowledge(vec![tag]));
                }
                result
            }
            Err(result) => {
                finished.place = ResultLocation::Memory(result.clone());
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

    /// Sends results that wait, as many as may be on their way.
    pub(super) fn send_due(&mut self, actions: &mut Vec<Action>) {
        let Some(session) = self.session else { return };
        while self.in_flight < self.settings.in_flight {
            let Some(task) = self.due.pop_front() else { return };
            let Some(State::Finished(finished)) = self.tasks.get_mut(&task) else { continue };
            match &finished.place {
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
                tracing::error!(%task, "its result in the spool can't be read; the next start reports the task");
                self.in_flight -= 1;
                self.tasks.remove(&task);
                self.left.remove(&task);
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
                // Only a result that never reached the spool still has its message.
                if let Some(tag) = finished.tag.take() {
                    actions.push(Action::Acknowledge(vec![tag]));
                }
                self.tasks.remove(&task);
                self.left.remove(&task);
                self.ended.insert(task);
                self.idle.delivered += 1;
                actions.push(Action::JournalEnded(vec![task]));
            }
            PublishStatus::Returned(_) | PublishStatus::Refused => {
                tracing::warn!(%task, outcome = ?status, "the broker did not take the result; it is kept and sent again");
                finished.sending = SendState::Later;
            }
        }
        self.send_due(actions);
    }
}
