//! The state and result of a task.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::TaskId;
use crate::json::FreeForm;
use crate::json_text::Text;
use crate::message::TaskState;

/// Response of `GET /v2/tasks/{id}`.
///
/// Clients take a `result`, even null, for success. So absent members are left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document<'a> {
    pub task_id: TaskId,
    pub status: TaskState,
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    pub result: Option<Text<'a>>,
    /// The text of the error.
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    pub exception: Option<Text<'a>>,
    /// Why the state is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Seconds since 1970, as a decimal number. The SDK's executor takes its presence for the end of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_t: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<FreeForm>,
}

impl<'a> Document<'a> {
    const fn new(task_id: TaskId, status: TaskState) -> Self {
        Self {
            task_id,
            status,
            result: None,
            exception: None,
            reason: None,
            completion_t: None,
            details: None,
        }
    }

    /// A task that has not ended.
    pub const fn pending(task_id: TaskId, status: TaskState) -> Self {
        Self::new(task_id, status)
    }

    pub fn success(task_id: TaskId, result: Text<'a>, completion_t: String) -> Self {
        Self {
            result: Some(result),
            completion_t: Some(completion_t),
            ..Self::new(task_id, TaskState::Success)
        }
    }

    pub fn failed(task_id: TaskId, exception: Text<'a>, completion_t: String) -> Self {
        Self {
            exception: Some(exception),
            completion_t: Some(completion_t),
            ..Self::new(task_id, TaskState::Failed)
        }
    }

    /// In a batch: the task does not exist, or belongs to another identity.
    pub fn unknown(task_id: TaskId) -> Self {
        Self { reason: Some("Unknown task id".to_owned()), ..Self::new(task_id, TaskState::Failed) }
    }

    pub fn with_details(self, details: Option<FreeForm>) -> Self {
        Self { details, ..self }
    }
}

/// Body of `POST /v2/batch_status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    pub task_ids: Vec<TaskId>,
}

/// Response of `POST /v2/batch_status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Documents<'a> {
    #[serde(default)]
    pub response: String,
    #[serde(borrow)]
    pub results: BTreeMap<TaskId, Document<'a>>,
}

impl<'a> Documents<'a> {
    pub fn new(results: BTreeMap<TaskId, Document<'a>>) -> Self {
        Self { response: "batch".to_owned(), results }
    }
}
