//! Reads rows of the table of tasks, and converts their state.

use std::collections::HashMap;

use jiff::Timestamp;
use uuid::Uuid;
use wire::{EndpointId, IdentityId, TaskGroupId, TaskId};

use super::state::{Outcome, State, TaskHolder};
use crate::columns::{ROWS, id, instant, json, key};
use crate::database::{Row, StatementBuilder};
use crate::{Store, StoreError, Tx};

/// The rows that were read, in order.
#[derive(Clone, Debug)]
pub struct Page<T> {
    pub rows: Vec<T>,
    /// There may be more after these.
    pub more: bool,
}

/// A task as its owner may see it, without what came of it.
#[derive(Clone, Debug)]
pub struct TaskRow {
    pub id: TaskId,
    pub owner: IdentityId,
    pub endpoint: EndpointId,
    pub state: State,
    /// The size of the message that ended it; 0 without one.
    pub result_bytes: usize,
}

/// What must be known of a task to change it.
pub(crate) struct CurrentTask {
    pub(crate) endpoint: EndpointId,
    pub(crate) group: TaskGroupId,
    pub(crate) owner: IdentityId,
    pub(crate) queue: bool,
    pub(crate) state: State,
}

/// Reads tasks, and locks them: their states change only by this transaction until it ends.
pub(crate) async fn current_tasks(
    tx: &mut Tx,
    tasks: impl ExactSizeIterator<Item = TaskId>,
) -> Result<HashMap<TaskId, CurrentTask>, StoreError> {
    let mut tasks: Vec<_> = tasks.collect();
    if tx.needs_locks() {
        tasks.sort_unstable();
    }
    let mut known = HashMap::with_capacity(tasks.len());
    for tasks in tasks.chunks(ROWS) {
        let mut select = StatementBuilder::new(
            "SELECT t.id, t.endpoint_id, t.group_id, t.state, t.progress_json, t.ended_us, g.owner_id, g.queue \
             FROM tasks t JOIN task_groups g ON g.id = t.group_id WHERE t.id",
        );
        select.push_in(tasks.iter().map(|task| key(task.as_uuid())));
        for row in select.build().locking(" ORDER BY t.id FOR UPDATE OF t").fetch_all(&mut *tx).await? {
            let current = CurrentTask {
                endpoint: EndpointId::from_uuid(id(&row, "endpoint_id")?),
                group: TaskGroupId::from_uuid(id(&row, "group_id")?),
                owner: IdentityId::from_uuid(id(&row, "owner_id")?),
                queue: row.try_get("queue")?,
                state: state_of(&row)?,
            };
            known.insert(TaskId::from_uuid(id(&row, "id")?), current);
        }
    }
    Ok(known)
}

impl Store {
    /// Those of `tasks` that exist.
    pub async fn tasks(&self, tasks: &[TaskId]) -> Result<Vec<TaskRow>, StoreError> {
        let mut found = Vec::with_capacity(tasks.len());
        for tasks in tasks.chunks(ROWS) {
            let mut select = StatementBuilder::new(
                "SELECT t.id, t.endpoint_id, t.state, t.progress_json, t.ended_us, g.owner_id, \
                 coalesce(r.bytes, 0) AS bytes FROM tasks t JOIN task_groups g ON g.id = t.group_id \
                 LEFT JOIN results r ON r.task_id = t.id WHERE t.id",
            );
            select.push_in(tasks.iter().map(|task| key(task.as_uuid())));
            for row in select.build().fetch_all(&self.readers).await? {
                found.push(TaskRow {
                    id: TaskId::from_uuid(id(&row, "id")?),
                    owner: IdentityId::from_uuid(id(&row, "owner_id")?),
                    endpoint: EndpointId::from_uuid(id(&row, "endpoint_id")?),
                    state: state_of(&row)?,
                    result_bytes: usize::try_from(row.try_get::<i64>("bytes")?)
                        .map_err(|_| StoreError::Corrupt("bytes"))?,
                });
            }
        }
        Ok(found)
    }
}

/// What the ids of tasks that were submitted before `before` are below: they begin with the milliseconds at which
/// they were made.
pub(crate) fn submitted_before(before: Timestamp) -> Vec<u8> {
    key(Uuid::from_u128(u128::from(before.as_millisecond().max(0).cast_unsigned()) << 80))
}

/// The number in the column `state`. Released numbers never change their meaning.
pub(crate) fn stored(state: &State) -> i64 {
    match state {
        State::Open { holder: TaskHolder::Waiting, .. } => 0,
        State::Open { holder: TaskHolder::Taken, .. } => 1,
        State::Ended { outcome: Outcome::Succeeded, .. } => 2,
        State::Ended { outcome: Outcome::Failed, .. } => 3,
        State::Expired { .. } => 4,
    }
}

fn state_of(row: &Row) -> Result<State, StoreError> {
    let open = |holder| -> Result<State, StoreError> {
        let progress: Option<&str> = row.try_get("progress_json")?;
        let progress = progress.map(|text| json(text, "progress_json")).transpose()?;
        Ok(State::Open { holder, progress })
    };
    let ended = || -> Result<Timestamp, StoreError> {
        let at: i64 = row.try_get("ended_us")?;
        instant(at, "ended_us")
    };
    match row.try_get::<i64>("state")? {
        0 => open(TaskHolder::Waiting),
        1 => open(TaskHolder::Taken),
        2 => Ok(State::Ended { outcome: Outcome::Succeeded, at: ended()? }),
        3 => Ok(State::Ended { outcome: Outcome::Failed, at: ended()? }),
        4 => Ok(State::Expired { at: ended()? }),
        _ => Err(StoreError::Corrupt("state")),
    }
}
