//! Counts an endpoint's tasks by state. The transactions that change tasks update the counts, so they are always exact,
//! and reading them costs one row. The same row says when the endpoint was used last.

use jiff::Timestamp;
use wire::EndpointId;

use crate::columns::key;
use crate::database::query;
use crate::tasks::state::{Outcome, TaskHolder};
use crate::{Store, StoreError, Tx};

/// The counts of one endpoint, or how a transaction changes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// In its queue.
    pub waiting: i64,
    /// Acknowledged by it and not ended.
    pub taken: i64,
    pub succeeded: i64,
    pub failed: i64,
    /// Results that came for tasks that had ended.
    pub late: i64,
}

impl Counters {
    pub(crate) fn ended(&mut self, holder: TaskHolder, outcome: Outcome) {
        match holder {
            TaskHolder::Waiting => self.waiting -= 1,
            TaskHolder::Taken => self.taken -= 1,
        }
        match outcome {
            Outcome::Succeeded => self.succeeded += 1,
            Outcome::Failed => self.failed += 1,
        }
    }
}

/// Adds `change` to the counts of `endpoint`. `used`: when it is used by this; absent: the time stays.
pub(crate) async fn count(
    tx: &mut Tx,
    endpoint: EndpointId,
    change: Counters,
    used: Option<Timestamp>,
) -> Result<(), StoreError> {
    if change == Counters::default() && used.is_none() {
        return Ok(());
    }
    query(
        "INSERT INTO endpoint_tasks (endpoint_id, waiting, taken, succeeded, failed, late, used_us) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (endpoint_id) DO UPDATE SET \
         waiting = endpoint_tasks.waiting + excluded.waiting, taken = endpoint_tasks.taken + excluded.taken, \
         succeeded = endpoint_tasks.succeeded + excluded.succeeded, \
         failed = endpoint_tasks.failed + excluded.failed, late = endpoint_tasks.late + excluded.late, \
         used_us = coalesce(excluded.used_us, endpoint_tasks.used_us)",
    )
    .bind(key(endpoint.as_uuid()))
    .bind(change.waiting)
    .bind(change.taken)
    .bind(change.succeeded)
    .bind(change.failed)
    .bind(change.late)
    .bind(used.map(Timestamp::as_microsecond))
    .execute(tx)
    .await?;
    Ok(())
}

impl Store {
    pub async fn counters(&self, endpoint: EndpointId) -> Result<Counters, StoreError> {
        let row = query(
            "SELECT waiting, taken, succeeded, failed, late FROM endpoint_tasks WHERE endpoint_id = $1",
        )
        .bind(key(endpoint.as_uuid()))
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = row else { return Ok(Counters::default()) };
        Ok(Counters {
            waiting: row.try_get("waiting")?,
            taken: row.try_get("taken")?,
            succeeded: row.try_get("succeeded")?,
            failed: row.try_get("failed")?,
            late: row.try_get("late")?,
        })
    }
}
