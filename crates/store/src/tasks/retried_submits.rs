//! Recognizes retried submits: those whose answer may not have arrived, and those with an `Idempotency-Key`.
//!
//! The stock SDK posts a submit again when the reply was lost, without marking it as a retry. So each submit is recorded
//! in the transaction of its tasks, and the record is deleted once the answer has been written to its connection. An
//! equal submit that finds a record was never answered, and gets the same ids. If the recorded one is being answered at
//! this moment, the equal one is a submit of its own: equal calls at the same time are common.

use std::collections::HashMap;
use std::fmt::Debug;

use jiff::Timestamp;
use uuid::Uuid;
use wire::{EndpointId, IdentityId, RequestId, TaskGroupId, TaskId};

use crate::columns::{ROWS, id, key};
use crate::database::{Row, StatementBuilder, query};
use crate::secret::Hash;
use crate::{Command, Store, StoreError, Tx};

/// The most equal records that are read: of many equal calls at the same time, most are being answered.
const MOST_EQUAL: i64 = 1000;
/// The most equal records that are checked for results that the client knows.
const MOST_CHECKED: usize = 16;

/// Identifies a retried submit.
#[derive(Clone, Copy, Debug)]
pub struct SubmitFingerprint {
    /// Hash of identity, endpoint and body.
    pub body: Hash,
    /// Hash of the header `Idempotency-Key`.
    pub key: Option<Hash>,
    /// Older records without a key do not count.
    pub not_before: Timestamp,
    /// Older records with a key do not count.
    pub keys_not_before: Timestamp,
}

/// A submit that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub request: RequestId,
    pub group: TaskGroupId,
    pub endpoint: EndpointId,
    /// In the order of the body.
    pub tasks: Vec<TaskId>,
}

/// The submits whose answers this process is writing to their connections at this moment. The caller keeps them in memory. What
/// other processes are answering is told by a column, and by the lock that each of them holds as long as it lives.
pub trait AnswersInFlight: Debug + Send + Sync {
    fn contains(&self, request: RequestId) -> bool;
}

/// What the records say of a submit.
pub(crate) enum RetryCheck {
    No,
    /// It was accepted before: never answered, or with the same key.
    Accepted(Accepted),
    /// Its key was used for another body.
    OtherBody,
    /// These equal ones were never answered. Whether their client knows their results must be read first.
    Unread(Vec<RequestId>),
}

/// Whether the client knows results of equal submits that were never answered. Reading this takes time in proportion to
/// their tasks, so it is read outside the writer.
pub(crate) type KnownToClient = HashMap<RequestId, bool>;

pub(crate) async fn check(
    tx: &mut Tx,
    owner: IdentityId,
    fingerprint: &SubmitFingerprint,
    in_flight: &dyn AnswersInFlight,
    process: Option<i64>,
    read: &KnownToClient,
) -> Result<RetryCheck, StoreError> {
    if let Some(used) = &fingerprint.key {
        let row = query(
            "SELECT id, fingerprint, group_id, endpoint_id, task_ids FROM submissions \
             WHERE identity_id = $1 AND key_hash = $2 AND created_us >= $3 ORDER BY created_us LIMIT 1",
        )
        .bind(key(owner.as_uuid()))
        .bind(used.as_bytes())
        .bind(fingerprint.keys_not_before.as_microsecond())
        .fetch_optional(tx)
        .await?;
        return Ok(match row {
            None => RetryCheck::No,
            Some(row) if row.try_get::<&[u8]>("fingerprint")? == fingerprint.body.as_bytes() => {
                RetryCheck::Accepted(accepted(&row)?)
            }
            Some(_) => RetryCheck::OtherBody,
        });
    }
    let rows = query(
        "SELECT id, answered_by FROM submissions \
         WHERE fingerprint = $1 AND key_hash IS NULL AND created_us >= $2 ORDER BY created_us LIMIT $3",
    )
    .bind(fingerprint.body.as_bytes())
    .bind(fingerprint.not_before.as_microsecond())
    .bind(MOST_EQUAL)
    .fetch_all(&mut *tx)
    .await?;
    let mut equal = Vec::with_capacity(rows.len());
    let mut living = HashMap::new();
    for row in &rows {
        let request = RequestId::from_uuid(id(row, "id")?);
        let answered_by: Option<i64> = row.try_get("answered_by")?;
        let is_in_flight = match answered_by {
            Some(other) if process != Some(other) => match living.get(&other) {
                Some(lives) => *lives,
                None => *living.entry(other).or_insert(tx.is_living(other).await?),
            },
            _ => in_flight.contains(request),
        };
        if !is_in_flight {
            equal.push(request);
        }
    }
    let mut equal =
        equal.into_iter().take(MOST_CHECKED).skip_while(|request| read.get(request) == Some(&true));
    let Some(request) = equal.next() else { return Ok(RetryCheck::No) };
    if !read.contains_key(&request) {
        return Ok(RetryCheck::Unread(std::iter::once(request).chain(equal).collect()));
    }
    let row = query("SELECT id, group_id, endpoint_id, task_ids FROM submissions WHERE id = $1")
        .bind(key(request.as_uuid()))
        .fetch_one(&mut *tx)
        .await?;
    Ok(RetryCheck::Accepted(accepted(&row)?))
}

impl Store {
    /// Reads for `requests`, in order, whether their client knows results; stops at the first whose client does not.
    pub(crate) async fn read_unanswered(
        &self,
        requests: Vec<RequestId>,
        read: &mut KnownToClient,
    ) -> Result<(), StoreError> {
        for request in requests {
            let row = query("SELECT id, group_id, endpoint_id, task_ids FROM submissions WHERE id = $1")
                .bind(key(request.as_uuid()))
                .fetch_optional(&self.readers)
                .await?;
            // It may have been answered meanwhile.
            let Some(row) = row else { continue };
            let known = self.known_to_client(&accepted(&row)?).await?;
            read.insert(request, known);
            if !known {
                break;
            }
        }
        Ok(())
    }

    /// Whether the client has acknowledged the result of one of the tasks, and so knows their ids.
    async fn known_to_client(&self, accepted: &Accepted) -> Result<bool, StoreError> {
        for tasks in accepted.tasks.chunks(ROWS) {
            let mut select = StatementBuilder::new(
                "SELECT 1 FROM tasks t JOIN task_groups g ON g.id = t.group_id AND g.queue WHERE t.state > 1 \
                 AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.task_id = t.id) AND t.id",
            );
            select.push_in(tasks.iter().map(|task| key(task.as_uuid())));
            if select.push(" LIMIT 1").build().fetch_optional(&self.readers).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

const ADD: &str = "INSERT INTO submissions \
    (id, identity_id, fingerprint, key_hash, group_id, endpoint_id, task_ids, created_us, answered_by) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

/// A record with the same key gives way if it is too old to count.
const ADD_WITH_KEY: &str = "INSERT INTO submissions \
    (id, identity_id, fingerprint, key_hash, group_id, endpoint_id, task_ids, created_us, answered_by) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
    ON CONFLICT (identity_id, key_hash) WHERE key_hash IS NOT NULL DO UPDATE SET id = excluded.id, \
    fingerprint = excluded.fingerprint, group_id = excluded.group_id, endpoint_id = excluded.endpoint_id, \
    task_ids = excluded.task_ids, created_us = excluded.created_us, answered_by = excluded.answered_by \
    WHERE submissions.created_us < $10";

/// Records a submit. Returns false if another process has recorded one with the same key since [`check`] looked.
pub(crate) async fn add_record(
    tx: &mut Tx,
    owner: IdentityId,
    fingerprint: &SubmitFingerprint,
    accepted: &Accepted,
    now: Timestamp,
    process: Option<i64>,
) -> Result<bool, StoreError> {
    let tasks: Vec<u8> = accepted.tasks.iter().flat_map(|task| *task.as_uuid().as_bytes()).collect();
    let mut add = query(if fingerprint.key.is_some() { ADD_WITH_KEY } else { ADD })
        .bind(key(accepted.request.as_uuid()))
        .bind(key(owner.as_uuid()))
        .bind(fingerprint.body.as_bytes())
        .bind(fingerprint.key.as_ref().map(|key| key.as_bytes().to_vec()))
        .bind(key(accepted.group.as_uuid()))
        .bind(key(accepted.endpoint.as_uuid()))
        .bind(tasks)
        .bind(now.as_microsecond())
        .bind(process);
    if fingerprint.key.is_some() {
        add = add.bind(fingerprint.keys_not_before.as_microsecond());
    }
    Ok(add.execute(tx).await? == 1)
}

/// Takes back the record of a submit that is refused after all.
pub(crate) async fn remove_record(tx: &mut Tx, request: RequestId) -> Result<(), StoreError> {
    query("DELETE FROM submissions WHERE id = $1").bind(key(request.as_uuid())).execute(tx).await?;
    Ok(())
}

fn accepted(row: &Row) -> Result<Accepted, StoreError> {
    let tasks: &[u8] = row.try_get("task_ids")?;
    let task = |bytes| Uuid::from_slice(bytes).map(TaskId::from_uuid);
    Ok(Accepted {
        request: RequestId::from_uuid(id(row, "id")?),
        group: TaskGroupId::from_uuid(id(row, "group_id")?),
        endpoint: EndpointId::from_uuid(id(row, "endpoint_id")?),
        tasks: tasks
            .chunks(16)
            .map(task)
            .collect::<Result<_, _>>()
            .map_err(|_| StoreError::Corrupt("task_ids"))?,
    })
}

/// Deletes the records of requests whose answers have been written. Records with a key stay.
#[derive(Clone, Debug)]
pub struct DeleteAnsweredSubmits(pub Vec<RequestId>);

impl Command for DeleteAnsweredSubmits {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        for requests in self.0.chunks(ROWS) {
            let mut rows = StatementBuilder::new("DELETE FROM submissions WHERE key_hash IS NULL AND id");
            rows.push_in(requests.iter().map(|request| key(request.as_uuid())));
            rows.build().execute(&mut *tx).await?;
        }
        Ok(())
    }
}

/// Records that this process has given up writing the answers of these requests: an equal submit, to whichever process, is a
/// retry.
#[derive(Clone, Debug)]
struct GiveUpAnswers(Vec<RequestId>);

impl Command for GiveUpAnswers {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        for requests in self.0.chunks(ROWS) {
            let mut rows = StatementBuilder::new("UPDATE submissions SET answered_by = NULL WHERE id");
            rows.push_in(requests.iter().map(|request| key(request.as_uuid())));
            rows.build().execute(&mut *tx).await?;
        }
        Ok(())
    }
}

impl Store {
    /// Whether other processes may use the same database.
    pub fn has_other_processes(&self) -> bool {
        self.process.is_some()
    }

    /// Tells other processes, if any, that this one has given up writing the answers of `requests`.
    pub async fn give_up_answers(&self, requests: Vec<RequestId>) -> Result<(), StoreError> {
        match self.process {
            Some(_) => self.write(GiveUpAnswers(requests)).await,
            None => Ok(()),
        }
    }
}

/// Deletes records that are too old, at most `count` of each kind. Returns whether there may be more.
#[derive(Clone, Debug)]
pub struct DeleteSubmitRecords {
    pub before: Timestamp,
    pub keys_before: Timestamp,
    pub count: usize,
}

impl Command for DeleteSubmitRecords {
    type Output = bool;

    async fn run(self, tx: &mut Tx) -> Result<bool, StoreError> {
        let mut more = false;
        for (before, kind) in [(self.before, "key_hash IS NULL"), (self.keys_before, "key_hash IS NOT NULL")]
        {
            let count = i64::try_from(self.count).unwrap_or(i64::MAX);
            let mut delete = StatementBuilder::new(
                "DELETE FROM submissions WHERE id IN (SELECT id FROM submissions WHERE ",
            );
            delete.push(kind).push(" AND created_us < ").push_bind(before.as_microsecond());
            delete.push(" ORDER BY created_us LIMIT ").push_bind(count).push_skip_locked().push(")");
            let done = delete.build().execute(&mut *tx).await?;
            more |= done >= self.count as u64;
        }
        Ok(more)
    }
}
