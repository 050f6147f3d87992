//! Writes submits of many tasks. They are written in steps, so that others can write in between, and become visible all at once.
//!
//! ```text
//! staged, some tasks in each step --> accepted (one row, one transaction) --> released, some tasks in each step
//!    |                                                                          |
//!    +-- the request or the service ended: dropped, in steps                    +-- the service ended: goes on at its start
//! ```
//!
//! Staged tasks are in tables of their own, which nothing else reads. An accepted submit is always released, also after a
//! crash, unless its endpoint is deleted meanwhile; then its tasks are dropped.

use wire::{EndpointId, RequestId};

use super::counters::{self, Counters};
use super::state::State;
use super::submit_request::{NewTask, Submit};
use super::task_rows::stored;
use crate::columns::{id, key, text};
use crate::database::{StatementBuilder, query};
use crate::payload_files::{FileId, StoredContent};
use crate::payload_references::file_id;
use crate::{Command, Store, StoreError, Tx};

#[cfg(test)]
mod tests;

/// How long a submit that is to be released or dropped waits for a database that is away.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(1);
/// The most tasks that one transaction writes, and the most bytes of their payloads.
pub(crate) const TASKS: usize = 500;
const BYTES: usize = 4 << 20;
const BYTES_OF_ROWS: i64 = 4 << 20;

/// Whether a submit is written in steps.
pub(crate) fn is_large(tasks: &[NewTask]) -> bool {
    tasks.len() > TASKS || tasks.iter().map(inline_bytes).sum::<usize>() > BYTES
}

/// Bytes that lie in the row.
fn inline_bytes(task: &NewTask) -> usize {
    match &task.payload {
        StoredContent::Inline(content) => content.len(),
        StoredContent::File { .. } => 0,
    }
}

/// The first of `tasks` that one step writes.
fn step(tasks: &[NewTask]) -> usize {
    let mut bytes = 0;
    let fitting = tasks.iter().take(TASKS).take_while(|task| {
        bytes += inline_bytes(task);
        bytes <= BYTES
    });
    fitting.count().max(1)
}

/// Stages some tasks of a submit.
#[derive(Clone, Debug)]
struct Stage {
    request: RequestId,
    /// The position of the first of them in the submit.
    place: usize,
    tasks: Vec<NewTask>,
}

impl Command for Stage {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        let mut insert = StatementBuilder::new(
            "INSERT INTO staged_tasks \
             (request_id, place, task_id, function_id, payload, payload_file, payload_bytes) ",
        );
        insert.push_values(self.tasks.iter().zip(self.place..), |mut row, (task, place)| {
            row.push_bind(key(self.request.as_uuid()))
                .push_bind(i64::try_from(place).unwrap_or(i64::MAX))
                .push_bind(key(task.id.as_uuid()))
                .push_bind(key(task.function.as_uuid()))
                .push_bind(task.inline_payload())
                .push_bind(task.payload.file().map(|file| key(file.as_uuid())))
                .push_bind(i64::try_from(task.payload.len()).unwrap_or(i64::MAX));
        });
        insert.build().execute(tx).await?;
        Ok(())
    }
}

/// Marks the staged tasks of a submit as accepted, in the transaction that accepts it: they will be released.
pub(crate) async fn accept(tx: &mut Tx, submit: &Submit) -> Result<(), StoreError> {
    if tx.needs_locks() {
        // Another process that starts drops what it takes for left behind: the first ones first, and not while they are locked.
        let first = query("SELECT 1 FROM staged_tasks WHERE request_id = $1 AND place = 0").for_update();
        if first.bind(key(submit.request.as_uuid())).fetch_optional(&mut *tx).await?.is_none() {
            return Err(StoreError::TryAgain);
        }
    }
    query(
        "INSERT INTO staged_submits (request_id, group_id, endpoint_id, resource_specification_json, \
         result_serializers_json, submitted_us) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(key(submit.request.as_uuid()))
    .bind(key(submit.group.as_uuid()))
    .bind(key(submit.endpoint.as_uuid()))
    .bind(&submit.resource_specification)
    .bind(text(&submit.result_serializers)?)
    .bind(submit.now.as_microsecond())
    .execute(tx)
    .await?;
    Ok(())
}

/// Releases the next staged tasks of a submit that was accepted, or drops them if it was not.
#[derive(Clone, Debug)]
struct ReleaseOrDrop(RequestId);

#[derive(Debug, Default)]
struct ReleaseStep {
    /// Nothing of the submit is staged any more.
    done: bool,
    /// Its endpoint was deleted.
    gone: bool,
    /// Payload files that no row names any more.
    freed: Vec<FileId>,
}

impl Command for ReleaseOrDrop {
    type Output = ReleaseStep;

    async fn run(self, tx: &mut Tx) -> Result<ReleaseStep, StoreError> {
        let request = key(self.0.as_uuid());
        let endpoint = accepted_for(tx, &request).await?;
        let mut gone = false;
        if let Some(endpoint) = endpoint {
            // Held until the commit: the numbers of its outbox rows grow in the order of commits, and one process after another
            // releases.
            let exists = query("SELECT 1 FROM endpoints WHERE id = $1").for_update();
            gone = exists.bind(key(endpoint)).fetch_optional(&mut *tx).await?.is_none();
        }
        let rows = query(
            "SELECT place, CAST(coalesce(length(payload), 0) AS BIGINT) AS here FROM staged_tasks \
             WHERE request_id = $1 ORDER BY place LIMIT $2",
        )
        .locking(if endpoint.is_none() { " FOR UPDATE" } else { "" })
        .bind(&request)
        .bind(i64::try_from(TASKS).unwrap_or(i64::MAX))
        .fetch_all(&mut *tx)
        .await?;
        let (mut last, mut count, mut bytes) = (-1_i64, 0_i64, 0_i64);
        for row in &rows {
            bytes += row.try_get::<i64>("here")?;
            if count > 0 && bytes > BYTES_OF_ROWS {
                break;
            }
            last = row.try_get("place")?;
            count += 1;
        }
        let done = rows.is_empty();
        if tx.needs_locks() && endpoint.is_none() && accepted_for(tx, &request).await?.is_some() {
            // It was accepted before its tasks could be locked: the next step releases them.
            return Ok(ReleaseStep::default());
        }
        let mut step_result = ReleaseStep { done, gone, ..ReleaseStep::default() };
        if let Some(endpoint) = endpoint {
            if step_result.gone {
                query("DELETE FROM submissions WHERE id = $1").bind(&request).execute(&mut *tx).await?;
            } else if !done {
                release(tx, &request, last).await?;
                let change = Counters { waiting: count, ..Counters::default() };
                counters::count(tx, EndpointId::from_uuid(endpoint), change, None).await?;
            }
            if done || step_result.gone {
                query("DELETE FROM staged_submits WHERE request_id = $1")
                    .bind(&request)
                    .execute(&mut *tx)
                    .await?;
            }
            if !step_result.gone {
                // Its files have other rows now.
                query("DELETE FROM staged_tasks WHERE request_id = $1 AND place <= $2")
                    .bind(&request)
                    .bind(last)
                    .execute(tx)
                    .await?;
                return Ok(step_result);
            }
        }
        let dropped =
            query("DELETE FROM staged_tasks WHERE request_id = $1 AND place <= $2 RETURNING payload_file")
                .bind(&request)
                .bind(last)
                .fetch_all(tx)
                .await?;
        for row in &dropped {
            step_result.freed.extend(file_id(row, "payload_file")?);
        }
        Ok(step_result)
    }
}

/// The endpoint of a submit that was accepted and has not been released.
async fn accepted_for(tx: &mut Tx, request: &[u8]) -> Result<Option<uuid::Uuid>, StoreError> {
    let submit = query("SELECT endpoint_id FROM staged_submits WHERE request_id = $1")
        .bind(request)
        .fetch_optional(tx)
        .await?;
    submit.map(|submit| id(&submit, "endpoint_id")).transpose()
}

/// Turns the staged rows up to the position `last` into tasks.
async fn release(tx: &mut Tx, request: &[u8], last: i64) -> Result<(), StoreError> {
    query(
        "INSERT INTO tasks (id, group_id, endpoint_id, function_id, state, submitted_us) \
         SELECT s.task_id, r.group_id, r.endpoint_id, s.function_id, $3, r.submitted_us \
         FROM staged_tasks s JOIN staged_submits r ON r.request_id = s.request_id \
         WHERE s.request_id = $1 AND s.place <= $2 ORDER BY s.place",
    )
    .bind(request)
    .bind(last)
    .bind(stored(&State::NEW))
    .execute(&mut *tx)
    .await?;
    query(
        "INSERT INTO assignments (task_id, endpoint_id, function_id, payload, payload_file, payload_bytes, \
         resource_specification_json, result_serializers_json) \
         SELECT s.task_id, r.endpoint_id, s.function_id, s.payload, s.payload_file, s.payload_bytes, \
         r.resource_specification_json, r.result_serializers_json \
         FROM staged_tasks s JOIN staged_submits r ON r.request_id = s.request_id \
         WHERE s.request_id = $1 AND s.place <= $2 ORDER BY s.place",
    )
    .bind(request)
    .bind(last)
    .execute(tx)
    .await?;
    Ok(())
}

/// The staged tasks of a request. Dropping it releases or drops them in the background.
#[derive(Debug)]
pub(crate) struct Staged {
    store: Store,
    request: RequestId,
    step_result: bool,
}

impl Staged {
    /// Releases or drops all of them. Returns whether the endpoint still exists.
    pub(crate) async fn release_or_drop(mut self) -> Result<bool, StoreError> {
        let exists = self.store.release_or_drop(self.request).await?;
        self.step_result = true;
        Ok(exists)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.step_result {
            return;
        }
        let (store, request) = (self.store.clone(), self.request);
        // The request ended early. What it asked of the writer is done before this: it may have been accepted.
        tokio::spawn(async move {
            loop {
                match store.release_or_drop(request).await {
                    Ok(_) => return,
                    // It comes back, and accepted tasks wait for it.
                    Err(error) if error.is_outage() => tokio::time::sleep(AGAIN).await,
                    Err(error) => {
                        tracing::warn!(%error, %request, "cannot release or drop a staged submit; the next start does it");
                        return;
                    }
                }
            }
        });
    }
}

impl Store {
    /// Stages the tasks of `submit`, in steps.
    pub(crate) async fn stage(&self, submit: &Submit) -> Result<Staged, StoreError> {
        let request = submit.request;
        let staged = Staged { store: self.clone(), request, step_result: false };
        let mut place = 0;
        while place < submit.tasks.len() {
            let tasks = &submit.tasks[place..];
            let tasks = tasks[..step(tasks)].to_vec();
            let count = tasks.len();
            self.write(Stage { request, place, tasks }).await?;
            place += count;
        }
        Ok(staged)
    }

    /// Releases or drops all staged tasks of `request`. Returns whether its endpoint exists.
    pub(crate) async fn release_or_drop(&self, request: RequestId) -> Result<bool, StoreError> {
        let mut exists = true;
        loop {
            let step_result = self.write(ReleaseOrDrop(request)).await?;
            self.remove_files(step_result.freed).await;
            exists &= !step_result.gone;
            if step_result.done {
                return Ok(exists);
            }
        }
    }

    /// Releases the tasks that are still staged of an accepted submit.
    pub(crate) async fn release_accepted(&self, request: RequestId) -> Result<(), StoreError> {
        let staged = query("SELECT 1 FROM staged_submits WHERE request_id = $1")
            .bind(key(request.as_uuid()))
            .fetch_optional(&self.readers)
            .await?;
        if staged.is_some() {
            self.release_or_drop(request).await?;
        }
        Ok(())
    }

    /// Settles everything that an earlier run of the service left staged. Runs before the service accepts submits.
    pub async fn release_or_drop_all(&self) -> Result<(), StoreError> {
        loop {
            let row = query(
                "SELECT request_id FROM staged_submits UNION ALL SELECT request_id FROM staged_tasks LIMIT 1",
            )
            .fetch_optional(&self.readers)
            .await?;
            let Some(row) = row else { return Ok(()) };
            let request = RequestId::from_uuid(id(&row, "request_id")?);
            tracing::info!(%request, "settling a submit that was being written when the service ended");
            self.release_or_drop(request).await?;
        }
    }
}
