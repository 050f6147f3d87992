//! What the manager hands to the launcher, and what the launcher reports back. Both are one JSON document.

use std::os::fd::RawFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use wire::json::Object;
use wire::{FunctionId, IdentityId};

/// Everything the launcher needs to start one user endpoint. It arrives in a sealed memory file: never in arguments or the
/// environment, because it holds credentials.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaunchRequest {
    /// The local user to become. `None`: the manager's own user; the launcher changes no identity.
    pub local_user: Option<String>,
    /// The name of the user endpoint's directory, from a checked start command.
    pub name: String,
    pub files: ManagerFiles,
    /// The submitter's `user_endpoint_config`.
    pub user_options: Object,
    /// The submitter's Python and platform, as the service sent it.
    pub user_runtime: Option<Value>,
    /// The manager's configuration, for the template's `parent_config`.
    pub parent_config: Value,
    /// The identity that was mapped, for `mapped_identity` and the user endpoint's heartbeats.
    pub identity: Option<MappedIdentity>,
    /// The service's registration answer for the user endpoint, unchanged.
    pub credentials: Value,
    /// The manager's list. `None`: the template's own list holds.
    pub allowed_functions: Option<Vec<FunctionId>>,
    pub high_assurance: bool,
    /// The PAM service to ask. `None`: without PAM, all privileges are dropped.
    pub pam_service: Option<String>,
    /// More arguments for the user endpoint's command line, from the start command.
    pub arguments: Vec<String>,
    /// The environment of a personal manager, which its user endpoints inherit. Empty for a manager that changes users.
    pub inherited_environment: Vec<(String, String)>,
    /// The write end of the user endpoint's audit pipe: the manager's number. [`start`](super::start) passes it on.
    pub audit_descriptor: Option<RawFd>,
    /// The memory file with credentials that the manager rewrites: the manager's number of a descriptor that can only be
    /// read, passed on as the audit pipe is; and the key that the credentials are encrypted with.
    pub renewed_credentials: Option<(RawFd, String)>,
}

/// The files of a manager's directory that a launch reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ManagerFiles {
    pub template: PathBuf,
    pub schema: PathBuf,
    pub environment: PathBuf,
    /// The directory of the endpoint's own program: the last entry of the default `PATH`.
    pub program_directory: PathBuf,
}

/// How an identity became a local user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MappedIdentity {
    pub id: IdentityId,
    /// The effective identity of the submitter and its name, for messages.
    pub effective: IdentityId,
    pub username: String,
    /// What each mapper offered, for the user endpoint's heartbeats: a list.
    pub candidates: Value,
}

/// What the launcher writes to its report pipe, one JSON document a line. [`Reports`](super::Reports) reads it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum LaunchReport {
    /// The local user exists and may be started. Sent before privileges are dropped.
    UserFound {
        uid: u32,
        gid: u32,
    },
    /// With PAM, the user endpoint is a child of the launcher. Sent before the user endpoint's program runs.
    Running {
        pid: i32,
    },
    /// For the manager's log; the launch goes on.
    Warning {
        text: String,
    },
    /// The last word before `exec`: when the pipe closes after it, the user endpoint's program took over.
    Executing,
    Failed(LaunchFailure),
}

/// Why no user endpoint runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchFailure {
    /// The launcher's exit status: the stage that failed.
    pub status: u8,
    /// What the submitter reads, in full: `Unable to start user endpoint process for … [exit code: …]`.
    pub notice: String,
    /// For the manager's log. It may name what strangers must not know.
    pub private: String,
}
