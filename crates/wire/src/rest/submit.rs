//! Submission of tasks.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::id::{EndpointId, FunctionId, RequestId, TaskGroupId, TaskId};
use crate::json::{self, FreeForm};
use crate::json_text::Text;

/// Body of `POST /v3/endpoints/{id}/submit`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Submit<'a> {
    /// Whether results are also published to the group's queue.
    #[serde(default)]
    pub create_queue: bool,
    /// Packed arguments, by function.
    #[serde(borrow, deserialize_with = "calls")]
    pub tasks: BTreeMap<FunctionId, Vec<Text<'a>>>,
    /// If absent, the service creates a task group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_group_id: Option<TaskGroupId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_specification: Option<FreeForm>,
    /// The variables of the manager's template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_endpoint_config: Option<FreeForm>,
    /// Import paths of serialization strategies, tried in this order.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "json::list_or_null")]
    pub result_serializers: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_runtime: Option<UserRuntime>,
}

/// The maximum number of tasks in one request.
pub const MAX_TASKS: usize = 100_000;

impl Submit<'_> {
    /// The number of tasks.
    pub fn count(&self) -> usize {
        self.tasks.values().map(Vec::len).sum()
    }
}

/// Reads the payloads by function. Stops with an error after [`MAX_TASKS`].
fn calls<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<FunctionId, Vec<Text<'a>>>, D::Error> {
    deserializer.deserialize_map(Functions)
}

struct Functions;

impl<'de> Visitor<'de> for Functions {
    type Value = BTreeMap<FunctionId, Vec<Text<'de>>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("lists of payloads by function")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut tasks = BTreeMap::new();
        let mut room = MAX_TASKS;
        while let Some(function) = map.next_key()? {
            let payloads = map.next_value_seed(Payloads { room })?;
            room -= payloads.len();
            tasks.entry(function).or_insert_with(Vec::new).extend(payloads);
        }
        Ok(tasks)
    }
}

struct Payloads {
    room: usize,
}

impl<'de> DeserializeSeed<'de> for Payloads {
    type Value = Vec<Text<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Payloads {
    type Value = Vec<Text<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of payloads")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut payloads = Vec::new();
        while let Some(payload) = seq.next_element()? {
            if payloads.len() == self.room {
                return Err(A::Error::custom(format_args!("more than {MAX_TASKS} tasks")));
            }
            payloads.push(payload);
        }
        Ok(payloads)
    }
}

/// The software that the submitter runs.
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

/// Response to a submission: as many task ids per function, and in the same order, as there were payloads.
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
