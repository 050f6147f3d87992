//! Submission of tasks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{EndpointId, FunctionId, RequestId, TaskGroupId, TaskId};
use crate::json::FreeForm;
use crate::text::Text;

/// Body of `POST /v3/endpoints/{id}/submit`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Submit<'a> {
    /// Whether results shall also be put into the group's queue.
    #[serde(default)]
    pub create_queue: bool,
    /// Packed arguments, by function.
    #[serde(borrow)]
    pub tasks: BTreeMap<FunctionId, Vec<Text<'a>>>,
    /// Absent: the service makes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_group_id: Option<TaskGroupId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_specification: Option<FreeForm>,
    /// Variables of the manager's template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_endpoint_config: Option<FreeForm>,
    /// Import paths of strategies, to be tried in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_serializers: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_runtime: Option<UserRuntime>,
}

/// What the submitter runs on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct UserRuntime {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub globus_compute_sdk_version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub globus_sdk_version: Option<String>,
    /// The whole of Python's `sys.version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python_version: Option<String>,
    /// Since 3.14.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<FreeForm>,
    /// Since 3.14.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<FreeForm>,
}

/// Answer to a submission: as many task ids per function, and in the same order, as there were payloads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    pub request_id: RequestId,
    pub task_group_id: TaskGroupId,
    pub endpoint_id: EndpointId,
    pub tasks: BTreeMap<FunctionId, Vec<TaskId>>,
    /// Printed to the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ha_warning: Option<String>,
}
