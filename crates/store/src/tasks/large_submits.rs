//! Submits of many tasks. They are written in steps, between which others write, and count all at once or not at all.
//!
//! ```text
//! staged, some tasks in each step --> accepted (one row, one transaction) --> released, some tasks in each step
//!    |                                                                          |
//!    +-- the request or the service ended: dropped, in steps                    +-- the service ended: goes on at its start
//! ```
//!
//! What is staged is in tables of its own, where nothing else looks. What is accepted will be released whatever
//! happens, unless its endpoint is deleted; then the submit was for an endpoint that is no more.

use sqlx::{QueryBuilder, Row, Sqlite};
use wire::{EndpointId, RequestId};

use super::counters::{self, Counters};
use super::state::State;
use super::submit_request::{NewTask, Submit};
use super::task_rows::stored;
use crate::columns::{id, key, text};
use crate::payload_files::{FileId, Kept};
use crate::payload_references::file;
use crate::{Command, Store, StoreError, Tx};

#[cfg(test)]
mod tests;

/// Tasks that one transaction writes, and bytes of their payloads.
pub(crate) const TASKS: usize = 500;
const BYTES: usize = 4 << 20;
const BYTES_OF_ROWS: i64 = 4 << 20;

/// Whether a submit is written in steps.
pub(crate) fn is_large(tasks: &[NewTask]) -> bool {
    tasks.len() > TASKS || tasks.iter().map(here).sum::<usize>() > BYTES
}

/// Bytes that lie in the row.
fn here(task: &NewTask) -> usize {
    match &task.payload {
        Kept::Here(content) => content.len(),
        Kept::File { .. } => 0,
    }
}

/// The first of `tasks` that one step writes.
fn step(tasks: &[NewTask]) -> usize {
    let mut bytes = 0;
    let fitting = tasks.iter().take(TASKS).take_while(|task| {
        bytes += here(task);
        bytes <= BYTES
    });
    fitting.count().max(1)
}

/// Writes tasks of a submit that is not accepted yet.
#[derive(Debug)]
struct Stage {
    request: RequestId,
    /// Of the first of them in the submit.
    place: usize,
    tasks: Vec<NewTask>,
}

impl Command for Stage {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        let mut insert = QueryBuilder::<Sqlite>::new(
            "INSERT INTO staged_tasks \
             (request_id, place, task_id, function_id, payload, payload_file, payload_bytes) ",
        );
        insert.push_values(self.tasks.iter().zip(self.place..), |mut row, (task, place)| {
            row.push_bind(key(self.request.as_uuid()))
                .push_bind(i64::try_from(place).unwrap_or(i64::MAX))
                .push_bind(key(task.id.as_uuid()))
                .push_bind(key(task.function.as_uuid()))
                .push_bind(task.payload_here())
                .push_bind(task.payload.file().map(|file| key(file.as_uuid())))
                .push_bind(i64::try_from(task.payload.len()).unwrap_or(i64::MAX));
        });
        insert.build().execute(tx).await?;
        Ok(())
    }
}

/// Part of the transaction that accepts a submit: from now on, what was staged of it will be released.
pub(crate) async fn accept(tx: &mut Tx, submit: &Submit) -> Result<(), StoreError> {
    sqlx::query(
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

/// The next step with what is staged of a submit: some tasks are released if it was accepted, and dropped if it was not.
#[derive(Debug)]
struct Settle(RequestId);

#[derive(Debug, Default)]
struct Settled {
    /// Nothing is left of it.
    done: bool,
    /// Its endpoint is no more.
    gone: bool,
    /// Files that belong to nobody from now on.
    freed: Vec<FileId>,
}

impl Command for Settle {
    type Output = Settled;

    async fn run(self, tx: &mut Tx) -> Result<Settled, StoreError> {
        let request = key(self.0.as_uuid());
        let rows = sqlx::query(
            "SELECT place, coalesce(length(payload), 0) AS here FROM staged_tasks \
             WHERE request_id = $1 ORDER BY place LIMIT $2",
        )
        .bind(&request)
        .bind(i64::try_from(TASKS).unwrap_or(i64::MAX))
        .fetch_all(&mut *tx)
        .await?;
        let (mut last, mut count, mut bytes) = (-1_i64, 0_i64, 0_i64);
        for row in &rows {
            bytes += row.try_get::<i64, _>("here")?;
            if count > 0 && bytes > BYTES_OF_ROWS {
                break;
            }
            last = row.try_get("place")?;
            count += 1;
        }
        let done = rows.is_empty();
        let submit = sqlx::query("SELECT endpoint_id FROM staged_submits WHERE request_id = $1")
            .bind(&request)
            .fetch_optional(&mut *tx)
            .await?;
        let mut settled = Settled { done, ..Settled::default() };
        if let Some(submit) = submit {
            let endpoint = id(&submit, "endpoint_id")?;
            let exists = sqlx::query("SELECT 1 FROM endpoints WHERE id = $1").bind(key(endpoint));
            settled.gone = exists.fetch_optional(&mut *tx).await?.is_none();
            if settled.gone {
                sqlx::query("DELETE FROM submissions WHERE id = $1").bind(&request).execute(&mut *tx).await?;
            } else if !done {
                release(tx, &request, last).await?;
                let change = Counters { waiting: count, ..Counters::default() };
                counters::count(tx, EndpointId::from_uuid(endpoint), change).await?;
            }
            if done || settled.gone {
                sqlx::query("DELETE FROM staged_submits WHERE request_id = $1")
                    .bind(&request)
                    .execute(&mut *tx)
                    .await?;
            }
            if !settled.gone {
                // Its files have other rows now.
                sqlx::query("DELETE FROM staged_tasks WHERE request_id = $1 AND place <= $2")
                    .bind(&request)
                    .bind(last)
                    .execute(tx)
                    .await?;
                return Ok(settled);
            }
        }
        let dropped = sqlx::query(
            "DELETE FROM staged_tasks WHERE request_id = $1 AND place <= $2 RETURNING payload_file",
        )
        .bind(&request)
        .bind(last)
        .fetch_all(tx)
        .await?;
        for row in &dropped {
            settled.freed.extend(file(row, "payload_file")?);
        }
        Ok(settled)
    }
}

/// What is staged up to the place `last` becomes tasks.
async fn release(tx: &mut Tx, request: &[u8], last: i64) -> Result<(), StoreError> {
    sqlx::query(
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
    sqlx::query(
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

/// What was staged for a request. Dropped, it sees to it that nothing stays staged.
#[derive(Debug)]
pub(crate) struct Staged {
    store: Store,
    request: RequestId,
    settled: bool,
}

impl Staged {
    /// Whether the endpoint of the accepted submit still exists; everything is released or dropped.
    pub(crate) async fn settle(mut self) -> Result<bool, StoreError> {
        let exists = self.store.settle(self.request).await?;
        self.settled = true;
        Ok(exists)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let (store, request) = (self.store.clone(), self.request);
        // The request ended early. What it asked of the writer is done before this: it may have been accepted.
        tokio::spawn(async move {
            if let Err(error) = store.settle(request).await {
                tracing::warn!(%error, %request, "what was staged of a submit is left for the next start");
            }
        });
    }
}

impl Store {
    /// Writes the tasks of `submit`, in steps, where nothing looks until it is accepted.
    pub(crate) async fn stage(&self, submit: &Submit) -> Result<Staged, StoreError> {
        let request = submit.request;
        let staged = Staged { store: self.clone(), request, settled: false };
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

    /// Releases or drops all that is staged of `request`. Answers whether its endpoint exists.
    pub(crate) async fn settle(&self, request: RequestId) -> Result<bool, StoreError> {
        let mut exists = true;
        loop {
            let settled = self.write(Settle(request)).await?;
            self.remove(settled.freed).await;
            exists &= !settled.gone;
            if settled.done {
                return Ok(exists);
            }
        }
    }

    /// Releases what is still staged of a submit that was accepted before.
    pub(crate) async fn settle_accepted(&self, request: RequestId) -> Result<(), StoreError> {
        let staged = sqlx::query("SELECT 1 FROM staged_submits WHERE request_id = $1")
            .bind(key(request.as_uuid()))
            .fetch_optional(&self.readers)
            .await?;
        if staged.is_some() {
            self.settle(request).await?;
        }
        Ok(())
    }

    /// Settles what earlier lives of the service left staged. Before anybody submits.
    pub async fn settle_all(&self) -> Result<(), StoreError> {
        loop {
            let row = sqlx::query(
                "SELECT request_id FROM staged_submits UNION ALL SELECT request_id FROM staged_tasks LIMIT 1",
            )
            .fetch_optional(&self.readers)
            .await?;
            let Some(row) = row else { return Ok(()) };
            let request = RequestId::from_uuid(id(&row, "request_id")?);
            tracing::info!(%request, "a submit that was being written when the service ended is settled");
            self.settle(request).await?;
        }
    }
}
