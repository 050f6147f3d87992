//! Task groups: the tasks of one session of a submitter.

use serde::{Deserialize, Serialize};

use crate::id::{TaskGroupId, TaskId};

/// Response of `GET /v2/taskgroup/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskGroup {
    pub taskgroup_id: TaskGroupId,
    #[serde(default)]
    pub create_websockets_queue: bool,
    pub tasks: Vec<Member>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub id: TaskId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
}
