//! The outbox of tasks to endpoints (table `assignments`).
//!
//! A row stands until the endpoint has acknowledged it; queues in the broker are filled from these rows. A row is written
//! in the transaction that adds its task.

use futures_util::TryStreamExt;
use wire::{EndpointId, FunctionId, TaskId};

use super::counters::{self, Counters};
use super::state::{State, TaskHolder};
use super::task_rows::{Page, stored};
use crate::columns::{ROWS, id, json, key};
use crate::database::{StatementBuilder, query};
use crate::payload_files::FileId;
use crate::payload_references::{file_id, stored_content};
use crate::{Command, Store, StoreError, Tx};

/// Records that the endpoint acknowledged these outbox rows; they are never sent again. Returns the payload files that
/// no row names any more.
#[derive(Clone, Debug)]
pub struct AcknowledgeAssignments {
    pub endpoint: EndpointId,
    pub seqs: Vec<i64>,
    /// The number of the endpoint's credential.
    pub credential: i64,
}

impl Command for AcknowledgeAssignments {
    type Output = Vec<FileId>;

    async fn run(self, tx: &mut Tx) -> Result<Vec<FileId>, StoreError> {
        let taken = stored(&State::Open { holder: TaskHolder::Taken, progress: None });
        let endpoint = key(self.endpoint.as_uuid());
        let mut files = Vec::new();
        let mut change = Counters::default();
        for seqs in self.seqs.chunks(ROWS) {
            if tx.needs_locks() {
                let mut lock = StatementBuilder::new(
                    "SELECT 1 FROM tasks WHERE id IN (SELECT task_id FROM assignments WHERE endpoint_id = ",
                );
                lock.push_bind(&endpoint).push(" AND seq").push_in(seqs.iter().copied()).push(")");
                lock.build().locking(" ORDER BY id FOR UPDATE").fetch_all(&mut *tx).await?;
            }
            let mut tasks = StatementBuilder::new("UPDATE tasks SET state = ");
            tasks.push_bind(taken).push(" WHERE state = ").push_bind(stored(&State::NEW));
            tasks.push(" AND id IN (SELECT task_id FROM assignments WHERE endpoint_id = ");
            tasks.push_bind(&endpoint).push(" AND seq").push_in(seqs.iter().copied());
            tasks.push(")").build().execute(&mut *tx).await?;
            let mut rows = StatementBuilder::new("UPDATE assignments SET payload = NULL, credential = ");
            rows.push_bind(self.credential).push(" WHERE credential IS NULL AND endpoint_id = ");
            rows.push_bind(&endpoint).push(" AND seq");
            rows.push_in(seqs.iter().copied());
            let rows = rows.push(" RETURNING payload_file").build().fetch_all(&mut *tx).await?;
            let count = i64::try_from(rows.len()).unwrap_or(i64::MAX);
            change.waiting -= count;
            change.taken += count;
            let before = files.len();
            for row in &rows {
                files.extend(file_id(row, "payload_file")?);
            }
            if files.len() > before {
                let mut named =
                    StatementBuilder::new("UPDATE assignments SET payload_file = NULL WHERE endpoint_id = ");
                named.push_bind(&endpoint).push(" AND seq").push_in(seqs.iter().copied());
                named.build().execute(&mut *tx).await?;
            }
        }
        counters::count(tx, self.endpoint, change, None).await?;
        Ok(files)
    }
}

/// The row of an assignment that is to be sent, by its task.
pub(crate) const ASSIGNMENT: &str = "SELECT 1 FROM assignments WHERE task_id = $1 AND credential IS NULL";

/// An outbox row towards an endpoint.
#[derive(Clone, Debug)]
pub struct Assignment {
    pub seq: i64,
    pub task: TaskId,
    pub function: FunctionId,
    /// The packed arguments, as a JSON string.
    pub payload: String,
    pub resource_specification: String,
    pub result_serializers: Vec<String>,
}

impl Store {
    /// The next outbox rows of `endpoint` after `after` that it has not acknowledged: at most `count`, fewer once their
    /// payloads have reached `bytes`.
    pub async fn unacknowledged_assignments(
        &self,
        endpoint: EndpointId,
        after: i64,
        count: usize,
        bytes: usize,
    ) -> Result<Page<Assignment>, StoreError> {
        let mut rows = query(
            "SELECT seq, task_id, function_id, payload, payload_file, payload_bytes, \
             resource_specification_json, result_serializers_json \
             FROM assignments WHERE endpoint_id = $1 AND credential IS NULL AND seq > $2 ORDER BY seq LIMIT $3",
        )
        .bind(key(endpoint.as_uuid()))
        .bind(after)
        .bind(i64::try_from(count).unwrap_or(i64::MAX))
        .fetch(&self.readers);
        let mut waiting = Vec::new();
        let mut held = 0;
        while let Some(row) = rows.try_next().await? {
            let payload = stored_content(&row, "payload", "payload_file", "payload_bytes")?;
            held += payload.len();
            let assignment = Assignment {
                seq: row.try_get("seq")?,
                task: TaskId::from_uuid(id(&row, "task_id")?),
                function: FunctionId::from_uuid(id(&row, "function_id")?),
                payload: String::new(),
                resource_specification: row.try_get("resource_specification_json")?,
                result_serializers: json(row.try_get("result_serializers_json")?, "result_serializers_json")?,
            };
            waiting.push((assignment, payload));
            if held >= bytes {
                break;
            }
        }
        // Files are read once the connection is free for others.
        drop(rows);
        let more = waiting.len() >= count || held >= bytes;
        let mut rows = Vec::with_capacity(waiting.len());
        for (assignment, payload) in waiting {
            let Some(payload) = self.content(payload, ASSIGNMENT, assignment.task).await? else { continue };
            let payload = String::from_utf8(payload).map_err(|_| StoreError::Corrupt("payload"))?;
            rows.push(Assignment { payload, ..assignment });
        }
        Ok(Page { rows, more })
    }

    /// The tasks of these outbox rows towards endpoints.
    pub async fn tasks_of_assignments(&self, seqs: &[i64]) -> Result<Vec<TaskId>, StoreError> {
        let mut tasks = Vec::with_capacity(seqs.len());
        for seqs in seqs.chunks(ROWS) {
            let mut select = StatementBuilder::new("SELECT task_id FROM assignments WHERE seq");
            select.push_in(seqs.iter().copied());
            for row in select.build().fetch_all(&self.readers).await? {
                tasks.push(TaskId::from_uuid(id(&row, "task_id")?));
            }
        }
        Ok(tasks)
    }
}
