//! What Farcall adds to the protocol. All of it is optional: upstream's clients and endpoints don't send it and ignore it.

use serde::{Deserialize, Serialize};

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
