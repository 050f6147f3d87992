//! Submits that may come again: those whose answer may not have arrived, and those that name a key of their own.
//!
//! The stock SDK posts a submit once more when the reply was lost, and says nothing of that. What came is remembered in
//! the transaction of its tasks; once the answer has been written to its connection, it is forgotten. So what is found
//! here was never answered, and its twin gets the same ids. A twin of something that is being answered at this moment
//! is another submit: equal calls at the same time are nothing unusual.

use std::collections::HashMap;
use std::fmt::Debug;

use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite};
use uuid::Uuid;
use wire::{EndpointId, IdentityId, RequestId, TaskGroupId, TaskId};

use crate::columns::{ROWS, among, id, key};
use crate::secret::Hash;
use crate::{Command, Store, StoreError, Tx};

/// Equal ones that are found: most of many equal calls at the same time are being answered.
const FOUND: i64 = 1000;
/// Equal ones that are looked at: each but the last was never answered and has results that its client knows.
const LOOKED_AT: usize = 16;

/// Identifies a retried submit.
#[derive(Clone, Copy, Debug)]
pub struct Fingerprint {
    /// Of identity, endpoint and body.
    pub body: Hash,
    /// Of the header `Idempotency-Key`.
    pub key: Option<Hash>,
    /// Older ones without a key are no longer known.
    pub not_before: Timestamp,
    /// Older ones with a key are no longer known.
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

/// The submits whose answers are being written to their connections at this moment. The caller keeps them in memory.
pub trait AnswersInFlight: Debug + Send + Sync {
    fn contains(&self, request: RequestId) -> bool;
}

/// What is known of a submit before it is written.
pub(crate) enum Known {
    No,
    /// It was accepted before and never answered, or has the same key.
    Accepted(Accepted),
    /// Its key was used for something else.
    OtherBody,
    /// These are equal and were never answered: whether their client knows their results has to be read first.
    Unread(Vec<RequestId>),
}

/// Of equal submits that were never answered, whether their client knows their results. It takes as long as they have
/// tasks, and so is read beside the writer.
pub(crate) type Read = HashMap<RequestId, bool>;

pub(crate) async fn look(
    tx: &mut Tx,
    owner: IdentityId,
    fingerprint: &Fingerprint,
    in_flight: &dyn AnswersInFlight,
    read: &Read,
) -> Result<Known, StoreError> {
    if let Some(used) = &fingerprint.key {
        let row = sqlx::query(
            "SELECT id, fingerprint, group_id, endpoint_id, task_ids FROM submissions \
             WHERE identity_id = $1 AND key_hash = $2 AND created_us >= $3 ORDER BY created_us LIMIT 1",
        )
        .bind(key(owner.as_uuid()))
        .bind(used.as_bytes())
        .bind(fingerprint.keys_not_before.as_microsecond())
        .fetch_optional(tx)
        .await?;
        return Ok(match row {
            None => Known::No,
            Some(row) if row.try_get::<&[u8], _>("fingerprint")? == fingerprint.body.as_bytes() => {
                Known::Accepted(accepted(&row)?)
            }
            Some(_) => Known::OtherBody,
        });
    }
    let rows = sqlx::query(
        "SELECT id FROM submissions \
         WHERE fingerprint = $1 AND key_hash IS NULL AND created_us >= $2 ORDER BY created_us LIMIT $3",
    )
    .bind(fingerprint.body.as_bytes())
    .bind(fingerprint.not_before.as_microsecond())
    .bind(FOUND)
    .fetch_all(&mut *tx)
    .await?;
    let rows = rows.iter().map(|row| Ok(RequestId::from_uuid(id(row, "id")?)));
    let mut equal = rows.collect::<Result<Vec<_>, StoreError>>()?;
    equal.retain(|request| !in_flight.contains(*request));
    let mut equal = equal.into_iter().take(LOOKED_AT).skip_while(|request| read.get(request) == Some(&true));
    let Some(request) = equal.next() else { return Ok(Known::No) };
    if !read.contains_key(&request) {
        return Ok(Known::Unread(std::iter::once(request).chain(equal).collect()));
    }
    let row = sqlx::query("SELECT id, group_id, endpoint_id, task_ids FROM submissions WHERE id = $1")
        .bind(key(request.as_uuid()))
        .fetch_one(&mut *tx)
        .await?;
    Ok(Known::Accepted(accepted(&row)?))
}

impl Store {
    /// Adds to `read` what is to be known of `requests`: up to the first whose results its client doesn't know.
    pub(crate) async fn read_unanswered(
        &self,
        requests: Vec<RequestId>,
        read: &mut Read,
    ) -> Result<(), StoreError> {
        for request in requests {
            let row =
                sqlx::query("SELECT id, group_id, endpoint_id, task_ids FROM submissions WHERE id = $1")
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

    /// Whether the client has acknowledged the result of one of the tasks: then it knows their ids.
    async fn known_to_client(&self, accepted: &Accepted) -> Result<bool, StoreError> {
        for tasks in accepted.tasks.chunks(ROWS) {
            let mut select = QueryBuilder::<Sqlite>::new(
                "SELECT 1 FROM tasks t JOIN task_groups g ON g.id = t.group_id AND g.queue WHERE t.state > 1 \
                 AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.task_id = t.id) AND t.id IN ",
            );
            among(&mut select, tasks.iter().map(|task| key(task.as_uuid())));
            if select.push(" LIMIT 1").build().fetch_optional(&self.readers).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

pub(crate) async fn remember(
    tx: &mut Tx,
    owner: IdentityId,
    fingerprint: &Fingerprint,
    accepted: &Accepted,
    now: Timestamp,
) -> Result<(), StoreError> {
    let tasks: Vec<u8> = accepted.tasks.iter().flat_map(|task| *task.as_uuid().as_bytes()).collect();
    sqlx::query(
        "INSERT INTO submissions \
         (id, identity_id, fingerprint, key_hash, group_id, endpoint_id, task_ids, created_us) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(key(accepted.request.as_uuid()))
    .bind(key(owner.as_uuid()))
    .bind(fingerprint.body.as_bytes())
    .bind(fingerprint.key.as_ref().map(|key| key.as_bytes().to_vec()))
    .bind(key(accepted.group.as_uuid()))
    .bind(key(accepted.endpoint.as_uuid()))
    .bind(tasks)
    .bind(now.as_microsecond())
    .execute(tx)
    .await?;
    Ok(())
}

fn accepted(row: &SqliteRow) -> Result<Accepted, StoreError> {
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

/// The answers of these have been written to their connections: their twins are others. Those with a key stay known.
#[derive(Debug)]
pub struct Answered(pub Vec<RequestId>);

impl Command for Answered {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        for requests in self.0.chunks(ROWS) {
            let mut rows =
                QueryBuilder::<Sqlite>::new("DELETE FROM submissions WHERE key_hash IS NULL AND id IN ");
            among(&mut rows, requests.iter().map(|request| key(request.as_uuid())));
            rows.build().execute(&mut *tx).await?;
        }
        Ok(())
    }
}

/// Forgets what is too old to be known again, at most `count` of each kind. Answers whether there may be more.
#[derive(Debug)]
pub struct ForgetSubmissions {
    pub before: Timestamp,
    pub keys_before: Timestamp,
    pub count: usize,
}

impl Command for ForgetSubmissions {
    type Output = bool;

    async fn run(self, tx: &mut Tx) -> Result<bool, StoreError> {
        let mut more = false;
        for (before, forget) in [
            (
                self.before,
                "DELETE FROM submissions WHERE id IN (SELECT id FROM submissions \
                 WHERE key_hash IS NULL AND created_us < $1 ORDER BY created_us LIMIT $2)",
            ),
            (
                self.keys_before,
                "DELETE FROM submissions WHERE id IN (SELECT id FROM submissions \
                 WHERE key_hash IS NOT NULL AND created_us < $1 ORDER BY created_us LIMIT $2)",
            ),
        ] {
            let count = i64::try_from(self.count).unwrap_or(i64::MAX);
            let done =
                sqlx::query(forget).bind(before.as_microsecond()).bind(count).execute(&mut *tx).await?;
            more |= done.rows_affected() >= self.count as u64;
        }
        Ok(more)
    }
}
