//! Lists open tasks in bounded pages, for callers that end many of them.

use jiff::Timestamp;
use uuid::Uuid;
use wire::{EndpointId, TaskId};

use super::task_rows::submitted_before;
use crate::columns::{id, key};
use crate::database::{query, query_scalar};
use crate::tasks::state::TaskHolder;
use crate::{Store, StoreError};

/// A task that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenTask {
    pub id: TaskId,
    pub endpoint: EndpointId,
    pub holder: TaskHolder,
}

/// Which of an endpoint's open tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenTaskFilter {
    All,
    /// Those that it has not acknowledged.
    Waiting,
    /// Those that it acknowledged under a credential older than this one.
    TakenBefore(i64),
}

impl Store {
    /// The number of the last row of the outbox towards endpoints.
    pub async fn last_assignment(&self) -> Result<i64, StoreError> {
        let last: Option<i64> =
            query_scalar("SELECT max(seq) FROM assignments").fetch_one(&self.readers).await?;
        Ok(last.unwrap_or(0))
    }

    /// At most `count` open tasks of `endpoint`, oldest first, up to the row `last` of the outbox.
    pub async fn open_tasks(
        &self,
        endpoint: EndpointId,
        which: OpenTaskFilter,
        last: i64,
        count: usize,
    ) -> Result<Vec<TaskId>, StoreError> {
        let mut found = Vec::new();
        let before = match which {
            OpenTaskFilter::All | OpenTaskFilter::Waiting => {
                let rows = query(
                    "SELECT task_id FROM assignments WHERE endpoint_id = $1 AND credential IS NULL \
                     AND seq <= $2 ORDER BY seq LIMIT $3",
                )
                .bind(key(endpoint.as_uuid()))
                .bind(last)
                .bind(limit(count))
                .fetch_all(&self.readers)
                .await?;
                for row in &rows {
                    found.push(TaskId::from_uuid(id(row, "task_id")?));
                }
                i64::MAX
            }
            OpenTaskFilter::TakenBefore(credential) => credential,
        };
        if found.len() < count && which != OpenTaskFilter::Waiting {
            let rows = query(
                "SELECT task_id FROM assignments \
                 WHERE endpoint_id = $1 AND credential IS NOT NULL AND credential < $2 \
                 AND seq <= $3 ORDER BY credential, seq LIMIT $4",
            )
            .bind(key(endpoint.as_uuid()))
            .bind(before)
            .bind(last)
            .bind(limit(count - found.len()))
            .fetch_all(&self.readers)
            .await?;
            for row in &rows {
                found.push(TaskId::from_uuid(id(row, "task_id")?));
            }
        }
        Ok(found)
    }

    /// Open tasks that were submitted before `before`, the first `count` of those after `after`.
    pub async fn open_tasks_submitted_before(
        &self,
        before: Timestamp,
        after: Option<TaskId>,
        count: usize,
    ) -> Result<Vec<OpenTask>, StoreError> {
        let rows = query(
            "SELECT task_id, endpoint_id, credential FROM assignments \
             WHERE task_id < $1 AND task_id > $2 ORDER BY task_id LIMIT $3",
        )
        .bind(submitted_before(before))
        .bind(key(after.map_or(Uuid::nil(), |task| *task.as_uuid())))
        .bind(limit(count))
        .fetch_all(&self.readers)
        .await?;
        rows.iter()
            .map(|row| {
                let credential: Option<i64> = row.try_get("credential")?;
                Ok(OpenTask {
                    id: TaskId::from_uuid(id(row, "task_id")?),
                    endpoint: EndpointId::from_uuid(id(row, "endpoint_id")?),
                    holder: if credential.is_some() { TaskHolder::Taken } else { TaskHolder::Waiting },
                })
            })
            .collect()
    }

    /// Deleted endpoints that still have open tasks.
    pub async fn deleted_endpoints_with_open_tasks(&self) -> Result<Vec<EndpointId>, StoreError> {
        let rows = query(
            "SELECT t.endpoint_id FROM endpoint_tasks t WHERE t.waiting + t.taken > 0 \
             AND NOT EXISTS (SELECT 1 FROM endpoints e WHERE e.id = t.endpoint_id)",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| Ok(EndpointId::from_uuid(id(row, "endpoint_id")?))).collect()
    }
}

fn limit(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
