//! Status reports (heartbeats): what endpoints report about themselves and about the progress of their tasks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::extensions::SetUp;
use crate::id::{EndpointId, TaskId};
use crate::json::FreeForm;

/// The state of a task. Users see these words.
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

/// The party that reports a transition.
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

/// A task reached a state.
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
    /// Free form. [`StatusReport::liveness`] and [`crate::extensions`] read the parts that the service uses.
    #[serde(alias = "ep_status_report")]
    pub global_state: FreeForm,
    pub task_statuses: BTreeMap<TaskId, Vec<TaskTransition>>,
}

/// A report between the parts of an old endpoint. It never reaches the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerStatusReport {
    pub task_statuses: BTreeMap<TaskId, Vec<TaskTransition>>,
}

/// Whether the endpoint is online, according to its heartbeat.
#[derive(Debug, Clone, PartialEq)]
pub enum Liveness {
    /// Online; the next heartbeat follows within about this many seconds.
    Online { period: f64 },
    /// Online as above, but it takes no tasks yet: its set-up still runs.
    SettingUp { period: f64, set_up: SetUp },
    /// The endpoint has stopped in an orderly way.
    Offline,
    /// A user endpoint that could not be started, with the reason.
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
            return Liveness::Offline;
        }
        match SetUp::of(&self.global_state) {
            Some(set_up) => Liveness::SettingUp { period, set_up },
            None => Liveness::Online { period },
        }
    }
}

/// The seconds between heartbeats, if an endpoint does not name them.
pub const DEFAULT_HEARTBEAT_PERIOD: f64 = 30.0;
