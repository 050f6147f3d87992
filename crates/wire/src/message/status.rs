//! What endpoints report of themselves and of their tasks' progress.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{EndpointId, TaskId};
use crate::json::{self, Object};

/// How far a task has come. Users see these words as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskState {
    Received,
    WaitingForEp,
    WaitingForNodes,
    WaitingForLaunch,
    ExecutionStart,
    ExecutionEnd,
    Running,
    #[serde(alias = "Success")]
    Success,
    #[serde(alias = "Failed")]
    Failed,
    ResultReceived,
    ResultEnqueued,
    ActionProviderReceived,
    ActionProviderTaskSubmitted,
    ActionProviderTaskGroupInProgress,
    ActionProviderTaskGroupCompleted,
    ActionProviderTaskGroupError,
}

/// Who reports a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Actor {
    Worker,
    Manager,
    Interchange,
    Endpoint,
    ResultProcessor,
    WebService,
    ActionProvider,
}

/// A task came to a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskTransition {
    /// Nanoseconds since 1970.
    pub timestamp: u64,
    pub state: TaskState,
    pub actor: Actor,
}

/// A heartbeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    pub endpoint_id: EndpointId,
    /// Free form; [`StatusReport::life`] and [`crate::control`] read what matters in it.
    #[serde(alias = "ep_status_report", deserialize_with = "json::free_form")]
    pub global_state: Object,
    pub task_statuses: BTreeMap<TaskId, Vec<TaskTransition>>,
}

/// A manager's report, which only old endpoints sent, and only to themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerStatusReport {
    pub task_statuses: BTreeMap<TaskId, Vec<TaskTransition>>,
}

/// What a heartbeat says of the endpoint's life.
#[derive(Debug, Clone, PartialEq)]
pub enum Life {
    /// Alive, and heard again within about this many seconds.
    Online { period: f64 },
    /// Left in good order.
    Offline,
    /// A user endpoint that could not be started, and why.
    FailedToStart(String),
}

impl StatusReport {
    pub fn life(&self) -> Life {
        if let Some(error) = self.global_state.get("error") {
            let text = error.as_str().map_or_else(|| error.to_string(), str::to_owned);
            return Life::FailedToStart(text);
        }
        let period = self.global_state.get("heartbeat_period").and_then(serde_json::Value::as_f64);
        let inactive = self.global_state.get("active").and_then(serde_json::Value::as_bool) == Some(false);
        match period {
            Some(period) if period <= 0.0 => Life::Offline,
            _ if inactive => Life::Offline,
            Some(period) => Life::Online { period },
            None => Life::Online { period: DEFAULT_HEARTBEAT_PERIOD },
        }
    }
}

/// Seconds between heartbeats unless an endpoint says otherwise.
pub const DEFAULT_HEARTBEAT_PERIOD: f64 = 30.0;
