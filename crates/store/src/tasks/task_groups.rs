//! Task groups.

use uuid::Uuid;
use wire::{IdentityId, TaskGroupId, TaskId};

use crate::columns::{id, key, time};
use crate::database::query;
use crate::{Store, StoreError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskGroup {
    pub id: TaskGroupId,
    pub owner: IdentityId,
    /// Whether results are also delivered to the group's queue.
    pub queue: bool,
}

impl Store {
    pub async fn task_group(&self, group: TaskGroupId) -> Result<Option<TaskGroup>, StoreError> {
        let row = query("SELECT owner_id, queue FROM task_groups WHERE id = $1")
            .bind(key(group.as_uuid()))
            .fetch_optional(&self.readers)
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(TaskGroup {
            id: group,
            owner: IdentityId::from_uuid(id(&row, "owner_id")?),
            queue: row.try_get("queue")?,
        }))
    }

    /// The first `count` of the group's tasks after `after`, in the order of their ids, with when they were submitted.
    pub async fn task_group_tasks(
        &self,
        group: TaskGroupId,
        after: Option<TaskId>,
        count: usize,
    ) -> Result<Vec<(TaskId, jiff::Timestamp)>, StoreError> {
        let rows =
            query("SELECT id, submitted_us FROM tasks WHERE group_id = $1 AND id > $2 ORDER BY id LIMIT $3")
                .bind(key(group.as_uuid()))
                .bind(key(after.map_or(Uuid::nil(), |task| *task.as_uuid())))
                .bind(i64::try_from(count).unwrap_or(i64::MAX))
                .fetch_all(&self.readers)
                .await?;
        rows.iter().map(|row| Ok((TaskId::from_uuid(id(row, "id")?), time(row, "submitted_us")?))).collect()
    }
}
