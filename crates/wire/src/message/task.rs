//! The messages of tasks: a task to an endpoint, its cancellation, and its result.

use serde::{Deserialize, Serialize};

use super::{Container, TaskTransition};
use crate::id::{ContainerId, TaskId};
use crate::json::{self, FreeForm};
use crate::json_text::Text;

/// One call of a function, sent to an endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task<'a> {
    pub task_id: TaskId,
    /// Only old SDKs name a container. Sent as null if there is none.
    #[serde(default)]
    pub container_id: Option<ContainerId>,
    #[serde(default)]
    pub container: Option<Container>,
    /// The function and its arguments; see [`crate::buffer`].
    #[serde(borrow)]
    pub task_buffer: Text<'a>,
}

/// Cancels a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCancel {
    pub task_id: TaskId,
}

/// The result of a task. It is an error if and only if there are `error_details`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskResult<'a> {
    pub task_id: TaskId,
    /// The packed result, or the text of the error.
    #[serde(borrow)]
    pub data: Text<'a>,
    /// What the worker reports about itself: versions, platform, endpoint.
    #[serde(default)]
    pub details: Option<FreeForm>,
    #[serde(default)]
    pub error_details: Option<ErrorDetails>,
    #[serde(default)]
    pub task_statuses: Option<Vec<TaskTransition>>,
}

/// What kind of error ended a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetails {
    pub code: String,
    pub user_message: String,
}

impl Task<'_> {
    pub fn into_owned(self) -> Task<'static> {
        Task { task_buffer: self.task_buffer.into_owned(), ..self }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.reserve(self.task_buffer.held_bytes() + self.task_buffer.held_bytes() / 32);
        out.extend_from_slice(br#"{"task_id":"#);
        json::write(&self.task_id, out);
        out.extend_from_slice(br#","container_id":"#);
        json::write(&self.container_id, out);
        out.extend_from_slice(br#","container":"#);
        json::write(&self.container, out);
        out.extend_from_slice(br#","task_buffer":"#);
        self.task_buffer.write_json(out);
        out.push(b'}');
    }
}

impl TaskResult<'_> {
    pub const fn is_error(&self) -> bool {
        self.error_details.is_some()
    }

    pub fn into_owned(self) -> TaskResult<'static> {
        TaskResult { data: self.data.into_owned(), ..self }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.reserve(self.data.held_bytes() + self.data.held_bytes() / 32 + 512);
        out.extend_from_slice(br#"{"task_id":"#);
        json::write(&self.task_id, out);
        out.extend_from_slice(br#","data":"#);
        self.data.write_json(out);
        out.extend_from_slice(br#","details":"#);
        json::write(&self.details, out);
        out.extend_from_slice(br#","error_details":"#);
        json::write(&self.error_details, out);
        out.extend_from_slice(br#","task_statuses":"#);
        json::write(&self.task_statuses, out);
        out.push(b'}');
    }
}
