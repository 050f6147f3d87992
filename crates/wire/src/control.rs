//! What Farcall adds of its own. Everything here is optional for the other side: upstream's parties neither send it
//! nor mind it.

use serde::{Deserialize, Serialize};

use crate::id::{RunId, TaskId};
use crate::json::{self, FreeForm, Malformed, Object};

/// AMQP header of a task: the `major.minor` of the Python that registered the function, as a string.
pub const FUNCTION_PYTHON: &str = "function_python";

/// The key, in registration metadata and in heartbeats, under which our own things stand.
pub const FARCALL: &str = "farcall";

/// The most that a control message may measure.
pub const LIMIT: usize = 1 << 20;

/// In the metadata of a registration: what our endpoint is and can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ability {
    pub version: String,
    /// Whether it heeds [`Control::CancelTasks`].
    #[serde(default)]
    pub cancel: bool,
}

/// In the `global_state` of a heartbeat: which run of the endpoint this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulse {
    pub run: RunId,
    /// Whether it has told all it knows of the tasks that earlier runs took. Absent: it has.
    #[serde(default = "told", skip_serializing_if = "is_told")]
    pub ready: bool,
}

fn told() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref)] // the form that serde calls
fn is_told(ready: &bool) -> bool {
    *ready
}

impl Pulse {
    /// Finds ours in a heartbeat's `global_state`.
    pub fn of(global_state: &FreeForm) -> Option<Self> {
        #[derive(Deserialize)]
        struct Ours {
            farcall: Option<Pulse>,
        }
        global_state.read::<Ours>().ok()?.farcall
    }

    /// Puts ours into a heartbeat's `global_state`.
    pub fn mark(self, global_state: &mut Object) {
        let value = serde_json::to_value(self).expect("a run's id is a string");
        global_state.insert(FARCALL.to_owned(), value);
    }
}

/// A message of ours to an endpoint's command queue. Its content type is `application/json`.
///
/// The form is that of upstream's commands, and the names are not upstream's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", content = "kwargs")]
pub enum Control {
    #[serde(rename = "farcall_cancel_tasks")]
    CancelTasks { task_ids: Vec<TaskId> },
}

impl Control {
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        json::decode(bytes, LIMIT)
    }

    pub fn encode(&self) -> Vec<u8> {
        json::encode(self)
    }
}
