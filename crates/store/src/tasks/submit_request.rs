//! A submit that the store is to accept, and how its tasks become rows.

use std::sync::Arc;

use jiff::Timestamp;
use wire::{EndpointId, FunctionId, IdentityId, RequestId, TaskGroupId, TaskId};

use super::retried_submits::{Accepted, AnswersInFlight, SubmitFingerprint};
use super::state::State;
use super::task_rows::stored;
use crate::columns::{ROWS, key, text};
use crate::database::{StatementBuilder, query};
use crate::payload_files::StoredContent;
use crate::{StoreError, Tx};

/// A task as submitted.
#[derive(Clone, Debug)]
pub struct NewTask {
    pub id: TaskId,
    pub function: FunctionId,
    /// The packed arguments, as a JSON string.
    pub payload: StoredContent,
}

impl NewTask {
    /// The payload, if it is kept in the row.
    pub(crate) fn inline_payload(&self) -> Option<String> {
        match &self.payload {
            StoredContent::Inline(content) => Some(String::from_utf8_lossy(content).into_owned()),
            StoredContent::File { .. } => None,
        }
    }
}

/// Adds tasks, their outbox rows, and their group if it is new; all or nothing, and nothing if the same submit was
/// accepted before.
#[derive(Clone, Debug)]
pub struct Submit {
    pub request: RequestId,
    pub group: TaskGroupId,
    pub owner: IdentityId,
    /// Deliver the group's results to its queue from now on.
    pub queue: bool,
    pub endpoint: EndpointId,
    pub resource_specification: String,
    pub result_serializers: Vec<String>,
    /// In the order of the body.
    pub tasks: Vec<NewTask>,
    pub now: Timestamp,
    pub fingerprint: SubmitFingerprint,
    pub in_flight: Arc<dyn AnswersInFlight>,
}

/// The result of a submit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubmitResult {
    New(Accepted),
    /// It had been accepted before. Nothing was written; the caller removes the files of its payloads.
    Again(Accepted),
    /// Its `Idempotency-Key` was used for another body; nothing was written.
    KeyOfAnother,
    /// The endpoint has been deleted in the meantime; nothing was written.
    NoEndpoint,
    /// The task group is another identity's; nothing was written.
    GroupOfAnother,
}

impl Submit {
    /// Adds the group if it is new. Returns whether it is the submitter's.
    pub(crate) async fn own_group(&self, tx: &mut Tx) -> Result<bool, StoreError> {
        let own = query(
            "INSERT INTO task_groups (id, owner_id, queue, created_us) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (id) DO UPDATE SET queue = (task_groups.queue OR excluded.queue) \
             WHERE task_groups.owner_id = excluded.owner_id",
        )
        .bind(key(self.group.as_uuid()))
        .bind(key(self.owner.as_uuid()))
        .bind(self.queue)
        .bind(self.now.as_microsecond())
        .execute(tx)
        .await?;
        Ok(own == 1)
    }

    pub(crate) async fn write_tasks(&self, tx: &mut Tx) -> Result<(), StoreError> {
        let serializers = text(&self.result_serializers)?;
        for tasks in self.tasks.chunks(ROWS) {
            StatementBuilder::new(
                "INSERT INTO tasks (id, group_id, endpoint_id, function_id, state, submitted_us) ",
            )
            .push_values(tasks, |mut row, task| {
                row.push_bind(key(task.id.as_uuid()))
                    .push_bind(key(self.group.as_uuid()))
                    .push_bind(key(self.endpoint.as_uuid()))
                    .push_bind(key(task.function.as_uuid()))
                    .push_bind(stored(&State::NEW))
                    .push_bind(self.now.as_microsecond());
            })
            .build()
            .execute(&mut *tx)
            .await?;
            StatementBuilder::new(
                "INSERT INTO assignments (task_id, endpoint_id, function_id, payload, payload_file, payload_bytes, \
                 resource_specification_json, result_serializers_json) ",
            )
            .push_values(tasks, |mut row, task| {
                row.push_bind(key(task.id.as_uuid()))
                    .push_bind(key(self.endpoint.as_uuid()))
                    .push_bind(key(task.function.as_uuid()))
                    .push_bind(task.inline_payload())
                    .push_bind(task.payload.file().map(|file| key(file.as_uuid())))
                    .push_bind(i64::try_from(task.payload.len()).unwrap_or(i64::MAX))
                    .push_bind(&self.resource_specification)
                    .push_bind(&serializers);
            })
            .build()
            .execute(&mut *tx)
            .await?;
        }
        Ok(())
    }
}
