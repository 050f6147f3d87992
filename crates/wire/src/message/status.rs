//! What endpoints report of themselves and of their tasks' progress.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{EndpointId, TaskId};
use crate::json::FreeForm;

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
    /// Free form; [`StatusReport::liveness`] and [`crate::extensions`] read what matters in it.
    #[serde(alias = "ep_status_report")]
    pub global_state: FreeForm,
    pub task_statuses: BTreeMap<TaskId, Vec<TaskTransition>>,
}

/// A manager's report, which only old endpoints sent, and only to themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerStatusReport {
    pub task_statuses: BTreeMap<TaskId, Vec<TaskTransition>>,
}

/// What a heartbeat says of the endpoint's life.
#[derive(Debug, Clone, PartialEq)]
pub enum Liveness {
    /// Alive, and heard again within about this many seconds.
    Online { period: f64 },
    /// Left in good order.
    Offline,
    /// A user endpoint that could not be started, and why.
    FailedToStart(String),
}

impl StatusReport {
    pub fn liveness(&self) -> Liveness {
        #[derive(Deserialize)]
        struct Vital {
            error: Option<Value>,
            heartbeat_period: Option<Value>,
            active: Option<Value>,
        }
        let Ok(Vital { error, heartbeat_period, active }) = self.global_state.read() else {
            return Liveness::Online { period: DEFAULT_HEARTBEAT_PERIOD };
        };
        if let Some(error) = error {
            return Liveness::FailedToStart(error.as_str().map_or_else(|| error.to_string(), str::to_owned));
        }
        let period = heartbeat_period.as_ref().and_then(Value::as_f64).unwrap_or(DEFAULT_HEARTBEAT_PERIOD);
        if period <= 0.0 || active == Some(Value::Bool(false)) {
            Liveness::Offline
        } else {
            Liveness::Online { period }
        }
    }
}

/// Seconds between heartbeats unless an endpoint says otherwise.
pub const DEFAULT_HEARTBEAT_PERIOD: f64 = 30.0;
