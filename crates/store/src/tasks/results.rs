//! Results, and the outbox of results to clients (table `deliveries`).
//!
//! A result is recorded in one transaction with the message for its group's queue. After its retention time it is
//! deleted, and its task is marked as expired.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use futures_util::TryStreamExt;
use jiff::Timestamp;
use wire::{EndpointId, IdentityId, TaskGroupId, TaskId};

use super::counters::{self, Counters};
use super::task_rows::{CurrentTask, Page, current_tasks, stored, submitted_before};
use crate::columns::{ROWS, id, key, time};
use crate::database::{StatementBuilder, query};
use crate::locks::{lock_groups, lock_tasks};
use crate::payload_files::{FileId, StoredContent};
use crate::payload_references::{file_id, stored_content};
use crate::tasks::state::{Event, Outcome, State};
use crate::{Command, Store, StoreError, Tx};

/// A result as the endpoint published it.
#[derive(Clone, Debug)]
pub struct ReportedResult {
    pub task: TaskId,
    /// The endpoint that published it, by its routing key.
    pub endpoint: EndpointId,
    pub outcome: Outcome,
    /// The whole message.
    pub message: StoredContent,
}

/// How a reported result was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It ended its task. `deliver` names the group whose queue has a new message, and the group's owner.
    New { deliver: Option<(IdentityId, TaskGroupId)> },
    /// The task had ended before.
    Late,
    /// No such task was sent to that endpoint.
    Refused,
}

/// Ends tasks by their results, with the messages for their groups' queues.
#[derive(Clone, Debug)]
pub struct RecordResults {
    pub results: Vec<ReportedResult>,
    pub now: Timestamp,
}

#[derive(Debug)]
pub struct RecordedResults {
    /// In the order of the results.
    pub recorded: Vec<Recorded>,
    /// Payload files that no row names any more.
    pub freed: Vec<FileId>,
}

impl Command for RecordResults {
    type Output = RecordedResults;

    async fn run(self, tx: &mut Tx) -> Result<RecordedResults, StoreError> {
        let mut known = current_tasks(tx, self.results.iter().map(|result| result.task)).await?;
        if tx.needs_locks() {
            // The numbers of a group's outbox rows grow in the order of commits.
            let groups = known.values().map(|current| key(current.group.as_uuid()));
            let queues = lock_groups(tx, groups).await?;
            known.values_mut().for_each(|current| current.queue = queues.contains(current.group.as_uuid()));
        }
        let mut ended = HashSet::new();
        let mut changes: BTreeMap<EndpointId, Counters> = BTreeMap::new();
        let mut fresh = Vec::with_capacity(self.results.len());
        let mut recorded = Vec::with_capacity(self.results.len());
        let mut freed = Vec::new();
        for result in self.results {
            let current = known.get(&result.task).filter(|current| current.endpoint == result.endpoint);
            let Some(current) = current else {
                recorded.push(Recorded::Refused);
                freed.extend(result.message.file());
                continue;
            };
            let change = changes.entry(result.endpoint).or_default();
            let event = Event::Result { outcome: result.outcome, at: self.now };
            match &current.state {
                State::Open { holder, .. }
                    if !ended.contains(&result.task) && current.state.clone().apply(event).is_ok() =>
                {
                    change.ended(*holder, result.outcome);
                }
                _ => {
                    change.late += 1;
                    recorded.push(Recorded::Late);
                    freed.extend(result.message.file());
                    continue;
                }
            }
            ended.insert(result.task);
            recorded.push(Recorded::New { deliver: current.queue.then_some((current.owner, current.group)) });
            fresh.push((result, current));
        }
        for fresh in fresh.chunks(ROWS) {
            record(tx, fresh, self.now, &mut freed).await?;
        }
        for (endpoint, change) in changes {
            counters::count(tx, endpoint, change, Some(self.now)).await?;
        }
        Ok(RecordedResults { recorded, freed })
    }
}

async fn record(
    tx: &mut Tx,
    fresh: &[(ReportedResult, &CurrentTask)],
    now: Timestamp,
    freed: &mut Vec<FileId>,
) -> Result<(), StoreError> {
    StatementBuilder::new("INSERT INTO results (task_id, message, file, bytes, ended_us) ")
        .push_values(fresh, |mut row, (result, _)| {
            let here = match &result.message {
                StoredContent::Inline(message) => Some(&message[..]),
                StoredContent::File { .. } => None,
            };
            row.push_bind(key(result.task.as_uuid()))
                .push_bind(here)
                .push_bind(result.message.file().map(|file| key(file.as_uuid())))
                .push_bind(i64::try_from(result.message.len()).unwrap_or(i64::MAX))
                .push_bind(now.as_microsecond());
        })
        .build()
        .execute(&mut *tx)
        .await?;
    for outcome in [Outcome::Succeeded, Outcome::Failed] {
        let tasks: Vec<_> = fresh.iter().filter(|(result, _)| result.outcome == outcome).collect();
        if !tasks.is_empty() {
            let mut update = StatementBuilder::new("UPDATE tasks SET progress_json = NULL, state = ");
            update.push_bind(stored(&State::Ended { outcome, at: now }));
            update.push(", ended_us = ").push_bind(now.as_microsecond()).push(" WHERE id");
            update.push_in(tasks.iter().map(|(result, _)| key(result.task.as_uuid())));
            update.build().execute(&mut *tx).await?;
        }
    }
    let mut done = StatementBuilder::new("DELETE FROM assignments WHERE task_id");
    done.push_in(fresh.iter().map(|(result, _)| key(result.task.as_uuid())));
    for row in done.push(" RETURNING payload_file").build().fetch_all(&mut *tx).await? {
        freed.extend(file_id(&row, "payload_file")?);
    }
    let deliver: Vec<_> = fresh.iter().filter(|(_, current)| current.queue).collect();
    if !deliver.is_empty() {
        StatementBuilder::new("INSERT INTO deliveries (group_id, task_id) ")
            .push_values(deliver, |mut row, (result, current)| {
                row.push_bind(key(current.group.as_uuid())).push_bind(key(result.task.as_uuid()));
            })
            .build()
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}

/// Records that the client acknowledged these outbox rows of its group.
#[derive(Clone, Debug)]
pub struct AcknowledgeDeliveries {
    pub group: TaskGroupId,
    pub seqs: Vec<i64>,
}

impl Command for AcknowledgeDeliveries {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        for seqs in self.seqs.chunks(ROWS) {
            let mut rows = StatementBuilder::new("DELETE FROM deliveries WHERE group_id = ");
            rows.push_bind(key(self.group.as_uuid())).push(" AND seq");
            rows.push_in(seqs.iter().copied());
            rows.build().execute(&mut *tx).await?;
        }
        Ok(())
    }
}

/// Deletes at most `count` results that ended before `before` and marks their tasks as expired. Returns how many, and
/// the files that no row names any more.
#[derive(Clone, Debug)]
pub struct ExpireResults {
    pub before: Timestamp,
    pub count: usize,
}

impl Command for ExpireResults {
    type Output = (usize, Vec<FileId>);

    async fn run(self, tx: &mut Tx) -> Result<(usize, Vec<FileId>), StoreError> {
        let rows = query("SELECT task_id, file FROM results WHERE ended_us < $1 ORDER BY ended_us LIMIT $2")
            .for_update_skip_locked()
            .bind(self.before.as_microsecond())
            .bind(i64::try_from(self.count.min(ROWS)).unwrap_or(i64::MAX))
            .fetch_all(&mut *tx)
            .await?;
        let mut tasks = Vec::with_capacity(rows.len());
        let mut freed = Vec::new();
        for row in &rows {
            tasks.push(key(id(row, "task_id")?));
            freed.extend(file_id(row, "file")?);
        }
        if tasks.is_empty() {
            return Ok((0, freed));
        }
        if tx.needs_locks() {
            lock_tasks(tx, tasks.clone()).await?;
        }
        let mut results = StatementBuilder::new("DELETE FROM results WHERE task_id");
        results.push_in(tasks.iter().cloned());
        results.build().execute(&mut *tx).await?;
        let mut expired = StatementBuilder::new("UPDATE tasks SET state = ");
        expired.push_bind(stored(&State::Expired { at: self.before })).push(" WHERE id");
        expired.push_in(tasks.iter().cloned());
        expired.build().execute(&mut *tx).await?;
        let mut outbox = StatementBuilder::new("DELETE FROM deliveries WHERE task_id");
        outbox.push_in(tasks.iter().cloned());
        outbox.build().execute(&mut *tx).await?;
        Ok((tasks.len(), freed))
    }
}

/// Deletes at most `count` expired tasks that ended before `before`, and groups that are then empty.
#[derive(Clone, Debug)]
pub struct DeleteTasks {
    pub before: Timestamp,
    pub count: usize,
}

impl Command for DeleteTasks {
    type Output = usize;

    async fn run(self, tx: &mut Tx) -> Result<usize, StoreError> {
        // Who ended before then was submitted before then: the look ends there, and begins with the oldest.
        let rows = query(
            "SELECT id, group_id FROM tasks WHERE id < $1 AND state = $2 AND ended_us < $3 ORDER BY id LIMIT $4",
        )
        .for_update_skip_locked()
        .bind(submitted_before(self.before))
        .bind(stored(&State::Expired { at: self.before }))
        .bind(self.before.as_microsecond())
        .bind(i64::try_from(self.count.min(ROWS)).unwrap_or(i64::MAX))
        .fetch_all(&mut *tx)
        .await?;
        if rows.is_empty() {
            return Ok(0);
        }
        let mut tasks = Vec::with_capacity(rows.len());
        let mut groups = BTreeSet::new();
        for row in &rows {
            tasks.push(key(id(row, "id")?));
            groups.insert(key(id(row, "group_id")?));
        }
        let mut forgotten = StatementBuilder::new("DELETE FROM tasks WHERE id");
        forgotten.push_in(tasks.into_iter());
        forgotten.build().execute(&mut *tx).await?;
        if tx.needs_locks() {
            // A submit that is adding tasks to one of them is waited for.
            lock_groups(tx, groups.iter().cloned()).await?;
        }
        let mut empty = StatementBuilder::new(
            "DELETE FROM task_groups WHERE NOT EXISTS (SELECT 1 FROM tasks WHERE group_id = task_groups.id) \
             AND NOT EXISTS (SELECT 1 FROM staged_submits WHERE group_id = task_groups.id) AND id",
        );
        empty.push_in(groups.into_iter());
        empty.build().execute(&mut *tx).await?;
        Ok(rows.len())
    }
}

/// The row of a result, by its task.
pub(crate) const RESULT: &str = "SELECT 1 FROM results WHERE task_id = $1";

/// An outbox row towards a client.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub seq: i64,
    pub ended: Timestamp,
    pub message: Vec<u8>,
}

impl Store {
    /// The next outbox rows of `owner`'s `group` after `after`, bounded like [`Store::unacknowledged_assignments`]. None if the group is
    /// another identity's.
    pub async fn undelivered(
        &self,
        owner: IdentityId,
        group: TaskGroupId,
        after: i64,
        count: usize,
        bytes: usize,
    ) -> Result<Page<Delivery>, StoreError> {
        let mut rows = query(
            "SELECT d.seq, d.task_id, r.ended_us, r.message, r.file, r.bytes \
             FROM deliveries d JOIN results r ON r.task_id = d.task_id JOIN task_groups g ON g.id = d.group_id \
             WHERE d.group_id = $1 AND d.seq > $2 AND g.owner_id = $4 ORDER BY d.seq LIMIT $3",
        )
        .bind(key(group.as_uuid()))
        .bind(after)
        .bind(i64::try_from(count).unwrap_or(i64::MAX))
        .bind(key(owner.as_uuid()))
        .fetch(&self.readers);
        let mut undelivered = Vec::new();
        let mut held = 0;
        while let Some(row) = rows.try_next().await? {
            let message = stored_content(&row, "message", "file", "bytes")?;
            held += message.len();
            let task = TaskId::from_uuid(id(&row, "task_id")?);
            undelivered.push((row.try_get("seq")?, task, time(&row, "ended_us")?, message));
            if held >= bytes {
                break;
            }
        }
        // Files are read once the connection is free for others.
        drop(rows);
        let more = undelivered.len() >= count || held >= bytes;
        let mut rows = Vec::with_capacity(undelivered.len());
        for (seq, task, ended, message) in undelivered {
            if let Some(message) = self.content(message, RESULT, task).await? {
                rows.push(Delivery { seq, ended, message });
            }
        }
        Ok(Page { rows, more })
    }

    /// The result messages of `tasks`, where there are any.
    pub async fn results(&self, tasks: &[TaskId]) -> Result<HashMap<TaskId, Vec<u8>>, StoreError> {
        let mut found = HashMap::with_capacity(tasks.len());
        for tasks in tasks.chunks(ROWS) {
            let mut select =
                StatementBuilder::new("SELECT task_id, message, file, bytes FROM results WHERE task_id");
            select.push_in(tasks.iter().map(|task| key(task.as_uuid())));
            for row in select.build().fetch_all(&self.readers).await? {
                let task = TaskId::from_uuid(id(&row, "task_id")?);
                let message = stored_content(&row, "message", "file", "bytes")?;
                if let Some(message) = self.content(message, RESULT, task).await? {
                    found.insert(task, message);
                }
            }
        }
        Ok(found)
    }
}
