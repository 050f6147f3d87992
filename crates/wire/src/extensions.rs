//! What Farcall adds to the protocol. All of it is optional: upstream's clients and endpoints don't send it and ignore it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{RunId, TaskId};
use crate::json::{self, FreeForm, Malformed, Object};

/// AMQP header of a task: the `major.minor` of the Python that registered the function, as a string.
pub const FUNCTION_PYTHON: &str = "function_python";

/// The key of Farcall's additions in registration metadata and in heartbeats.
pub const FARCALL: &str = "farcall";

/// The maximum size of a command, in bytes.
pub const LIMIT: usize = 1 << 20;

/// In the metadata of a registration: what a Farcall endpoint can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    pub version: String,
    /// Whether it obeys [`FarcallCommand::CancelTasks`].
    #[serde(default)]
    pub cancel: bool,
}

/// In the `global_state` of a heartbeat: which run of the endpoint sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunState {
    pub run: RunId,
    /// Whether the endpoint has reported all it knows of the tasks that earlier runs took. True when absent.
    #[serde(default = "ready_by_default", skip_serializing_if = "is_ready")]
    pub ready: bool,
}

fn ready_by_default() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref)] // serde calls it with a reference
fn is_ready(ready: &bool) -> bool {
    *ready
}

impl RunState {
    /// Reads it from a heartbeat's `global_state`; `None` when it is not there.
    pub fn of(global_state: &FreeForm) -> Option<Self> {
        #[derive(Deserialize)]
        struct Additions {
            farcall: Option<RunState>,
        }
        global_state.read::<Additions>().ok()?.farcall
    }

    /// Adds it to a heartbeat's `global_state`.
    pub fn insert_into(self, global_state: &mut Object) {
        let value = serde_json::to_value(self).expect("a run's id is a string");
        global_state.insert(FARCALL.to_owned(), value);
    }
}

/// In the `global_state` of a status report: the `endpoint_setup` of a user endpoint still runs. Normal heartbeats follow once
/// the endpoint runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetUp {
    /// How long it has run, in seconds.
    pub seconds: u64,
    /// The last lines that it printed.
    #[serde(default)]
    pub output: String,
}

impl SetUp {
    /// Reads it from a report's `global_state`; `None` when it is not there.
    pub fn of(global_state: &FreeForm) -> Option<Self> {
        #[derive(Deserialize)]
        struct Report {
            farcall: Option<Additions>,
        }
        #[derive(Deserialize)]
        struct Additions {
            set_up: Option<SetUp>,
        }
        global_state.read::<Report>().ok()?.farcall?.set_up
    }

    /// Adds it to a report's `global_state`.
    pub fn insert_into(self, global_state: &mut Object) {
        let value = serde_json::to_value(self).expect("a number and a string");
        global_state.insert(FARCALL.to_owned(), Object::from_iter([("set_up".to_owned(), value)]).into());
    }
}

/// In the `global_state` of an endpoint's last heartbeat: why it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub reason: String,
}

impl End {
    /// Reads it from a heartbeat's `global_state`; `None` when it is not there.
    pub fn of(global_state: &FreeForm) -> Option<Self> {
        #[derive(Deserialize)]
        struct Report {
            farcall: Option<Additions>,
        }
        #[derive(Deserialize)]
        struct Additions {
            end: Option<End>,
        }
        global_state.read::<Report>().ok()?.farcall?.end
    }

    /// Adds it to a heartbeat's `global_state`, beside what is there of Farcall's.
    pub fn insert_into(self, global_state: &mut Object) {
        let value = serde_json::to_value(self).expect("a string");
        let additions = global_state.entry(FARCALL).or_insert_with(|| Object::new().into());
        if let Value::Object(additions) = additions {
            additions.insert("end".to_owned(), value);
        }
    }
}

/// A command of Farcall's own in an endpoint's command queue. Its content type is `application/json`.
///
/// It has the form of upstream's commands, with names that upstream does not use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", content = "kwargs")]
pub enum FarcallCommand {
    #[serde(rename = "farcall_cancel_tasks")]
    CancelTasks { task_ids: Vec<TaskId> },
}

impl FarcallCommand {
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        json::decode(bytes, LIMIT)
    }

    pub fn encode(&self) -> Vec<u8> {
        json::encode(self)
    }
}
