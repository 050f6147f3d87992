//! The golden files, and the type that reads each of them.
//!
//! A row of [`TABLE`] names a file without its directory: it applies to that file of every package and version.

#![allow(dead_code, unreachable_pub, reason = "each test that includes this uses its own part")]

use std::path::{Path, PathBuf};

use wire::extensions::FarcallCommand;
use wire::json;
use wire::message::{self, Message};
use wire::queue::{Registration, ResultConnection};
use wire::rest::auth::{authorize, consent, error as auth_error, identity, openid, policy, project, token};
use wire::rest::{Deleted, container, endpoint, error, function, submit, task, task_group, version};
use wire::start_document::{StartDocument, StartEndpoint};

/// How a file is read and written.
pub struct Row {
    pub file: &'static str,
    /// Reads, writes and reads again. The error is that of the first reading.
    pub attempt: fn(&[u8]) -> Result<Attempt, String>,
    pub rule: Rule,
}

/// The outcome of reading and writing a file.
#[derive(Debug)]
pub struct Attempt {
    pub written: Vec<u8>,
    /// Whether the written bytes are read as the same value.
    pub stable: bool,
}

/// How the written file is compared with the one that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The same JSON.
    Same,
    /// The same JSON except for null members, which we leave out.
    NullsLeftOut,
    /// A message; see `golden_files.rs`.
    Message,
    /// The same fields of a form, in any order.
    Form,
}

const LIMIT: usize = 1 << 20;

macro_rules! rows {
    ($($file:literal $how:ident $type:ty, $rule:ident;)+) => {
        pub const TABLE: &[Row] = &[$(Row { file: $file, attempt: $how!($type), rule: Rule::$rule }),+];
    };
}

macro_rules! json {
    ($type:ty) => {
        |bytes| {
            let value: $type = json::decode(bytes, LIMIT).map_err(|error| error.to_string())?;
            let written = json::encode(&value);
            let again: $type =
                json::decode(&written, usize::MAX).map_err(|error| format!("AGAIN {error}"))?;
            let stable = again == value;
            Ok(Attempt { written, stable })
        }
    };
}

macro_rules! form {
    ($type:ty) => {
        |bytes| {
            let value: $type = serde_urlencoded::from_bytes(bytes).map_err(|error| error.to_string())?;
            let written = serde_urlencoded::to_string(&value).unwrap().into_bytes();
            let again: $type =
                serde_urlencoded::from_bytes(&written).map_err(|error| format!("AGAIN {error}"))?;
            let stable = again == value;
            Ok(Attempt { written, stable })
        }
    };
}

macro_rules! message {
    ($type:ty) => {
        |bytes| {
            let value: $type = message::decode(bytes).map_err(|error| error.to_string())?;
            let written = message::encode(&value);
            let again: $type = message::decode(&written).map_err(|error| format!("AGAIN {error}"))?;
            let stable = again == value;
            Ok(Attempt { written, stable })
        }
    };
}

rows! {
    "task.bin" message Message<'_>, Message;
    "task-difficult.bin" message Message<'_>, Message;
    "task-empty.bin" message Message<'_>, Message;
    "task-container.bin" message Message<'_>, Message;
    "task-cancel.bin" message Message<'_>, Message;
    "result.bin" message Message<'_>, Message;
    "result-bare.bin" message Message<'_>, Message;
    "result-failed.bin" message Message<'_>, Message;
    "result-json.bin" message Message<'_>, Message;
    "result-lone-surrogate.bin" message Message<'_>, Message;
    "result-no-steps.bin" message Message<'_>, Message;
    "result-not-permitted.bin" message Message<'_>, Message;
    "status-report.bin" message Message<'_>, Message;
    "status-report-failed-start.bin" message Message<'_>, Message;
    "status-report-final.bin" message Message<'_>, Message;
    "heartbeat-blocks.bin" message Message<'_>, Message;
    "heartbeat-failed-start.bin" message Message<'_>, Message;
    "heartbeat-final.bin" message Message<'_>, Message;
    "heartbeat-manager.bin" message Message<'_>, Message;
    "heartbeat-threads.bin" message Message<'_>, Message;
    "manager-status-report.bin" message Message<'_>, Message;
    "task-transition.bin" message Message<'_>, Message;
    "container.bin" message Message<'_>, Message;
    "containerimage.bin" message Message<'_>, Message;

    "control-cancel-tasks.json" json FarcallCommand, Same;
    "heartbeat-run.bin" message Message<'_>, Message;
    "register-farcall.request.json" json endpoint::Register, Same;

    "start-endpoint.json" json StartEndpoint, Same;
    "start-document.json" json StartDocument, Same;
    "start-document-allowed-functions.json" json StartDocument, Same;

    "version.query" form version::Query, Form;
    "version.answer.json" json version::Versions, Same;
    "function-register.request.json" json function::Register<'_>, Same;
    "function-register-group.request.json" json function::Register<'_>, Same;
    "function-register-ha.request.json" json function::Register<'_>, Same;
    "function-register-public.request.json" json function::Register<'_>, Same;
    "function-register-source.request.json" json function::Register<'_>, Same;
    "function-register.answer.json" json function::Registered, Same;
    "function-register-public.answer.json" json function::Registered, Same;
    "function.answer.json" json function::Function<'_>, Same;
    "function-delete.answer.json" json Deleted, Same;
    "submit.request.json" json submit::Submit<'_>, Same;
    "submit-one.request.json" json submit::Submit<'_>, Same;
    "submit.answer.json" json submit::Submitted, Same;
    "submit-one.answer.json" json submit::Submitted, Same;
    "task-pending.answer.json" json task::Document<'_>, Same;
    "task-success.answer.json" json task::Document<'_>, Same;
    "task-failed.answer.json" json task::Document<'_>, Same;
    "task-unknown.answer.json" json task::Document<'_>, Same;
    "batch-status.request.json" json task::Batch, Same;
    "batch-status.answer.json" json task::Documents<'_>, Same;
    "task-group.answer.json" json task_group::TaskGroup, Same;
    "result-connection.answer.json" json ResultConnection, Same;
    "endpoint-register-bare.request.json" json endpoint::Register, NullsLeftOut;
    "endpoint-register-everything.request.json" json endpoint::Register, Same;
    "endpoint-register-bare.answer.json" json Registration, Same;
    "register-threads.request.json" json endpoint::Register, Same;
    "register-threads-again.request.json" json endpoint::Register, Same;
    "register-manager.request.json" json endpoint::Register, Same;
    "register-manager-allowed-functions.request.json" json endpoint::Register, Same;
    "endpoints.answer.json" json Vec<endpoint::Listed>, Same;
    "endpoints-any.query" form endpoint::Query, Form;
    "endpoint.answer.json" json endpoint::Endpoint, Same;
    "endpoint-status.answer.json" json endpoint::Status, Same;
    "endpoint-status-offline.answer.json" json endpoint::Status, Same;
    "endpoint-lock.answer.json" json endpoint::Locked, Same;
    "endpoint-delete.answer.json" json Deleted, Same;
    "allowed-functions.answer.json" json endpoint::AllowedFunctions, Same;
    "container-register.request.json" json container::Register, Same;
    "container-register.answer.json" json container::Registered, Same;
    "container.answer.json" json container::ContainerResponse, Same;
    "container-build.request.json" json container::Build, Same;
    "container-build.answer.json" json container::Registered, Same;
    "container-build-status.answer.json" json container::BuildStatus, Same;
    "error.answer.json" json error::ErrorBody, Same;
    "error-gare.answer.json" json error::ErrorBody, Same;
    "error-gare-scopes.answer.json" json error::ErrorBody, Same;

    "token-client-credentials.form" form token::Grant, Form;
    "token-client-credentials.answer.json" json token::TokenResponse, Same;
    "token-authorization-code.form" form token::Grant, Form;
    "token-authorization-code.answer.json" json token::TokenResponse, Same;
    "token-refresh.form" form token::Grant, Form;
    "token-refresh.answer.json" json token::TokenResponse, Same;
    "token-dependent.form" form token::Grant, Form;
    "token-dependent.answer.json" json Vec<token::Token>, Same;
    "token-revoke.form" form token::Revoke, Form;
    "token-revoke.answer.json" json token::Revoked, Same;
    "introspect.form" form token::Introspect, Form;
    "introspect.answer.json" json token::Introspection, Same;
    "introspect-stale.form" form token::Introspect, Form;
    "introspect-stale.answer.json" json token::Introspection, Same;
    "authorize.query" form authorize::Query, Form;
    "userinfo.answer.json" json identity::UserInfo, Same;
    "identities.query" form identity::Query, Form;
    "identities.answer.json" json identity::Identities, Same;
    "openid-configuration.answer.json" json openid::Configuration, Same;
    "jwk.answer.json" json openid::KeySet, Same;
    "projects.answer.json" json project::Projects, Same;
    "project-create.request.json" json project::Create, Same;
    "project-create-one-admin.request.json" json project::Create, Same;
    "project-create.answer.json" json project::Created, Same;
    "policies.answer.json" json policy::Policies, Same;
    "policy-create.request.json" json policy::Create, Same;
    "policy-create-bare.request.json" json policy::Create, NullsLeftOut;
    "policy-create.answer.json" json policy::PolicyResponse, Same;
    "consents.query" form consent::Query, Form;
    "consents.answer.json" json consent::Consents, Same;
    "error-oauth.form" form token::Grant, Form;
    "error-oauth.answer.json" json auth_error::ErrorBody, Same;
}

/// Files that are not bodies: `buffers.rs` reads them.
pub const OF_BUFFERS: [&str; 5] = [
    "buffers-packed.json",
    "buffers-split.json",
    "buffers-task.json",
    "strategies.json",
    "serialization.json",
];

/// The directory of the files.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Every golden file: its directory's name, its own name, its path.
pub fn files() -> Vec<(String, String, PathBuf)> {
    let mut found = Vec::new();
    for directory in std::fs::read_dir(root()).unwrap().map(Result::unwrap) {
        let name = directory.file_name().into_string().unwrap();
        if !directory.file_type().unwrap().is_dir() || name == "capturing" || name == "__pycache__" {
            continue;
        }
        for file in std::fs::read_dir(directory.path()).unwrap().map(Result::unwrap) {
            found.push((name.clone(), file.file_name().into_string().unwrap(), file.path()));
        }
    }
    found.sort();
    found
}

/// The row for a file. Both services have an `error.answer.json`.
pub fn row(directory: &str, file: &str) -> Option<&'static Row> {
    if directory.starts_with("globus-sdk") && file == "error.answer.json" {
        return Some(&AUTH_ERROR);
    }
    TABLE.iter().find(|row| row.file == file)
}

static AUTH_ERROR: Row =
    Row { file: "error.answer.json", attempt: json!(auth_error::ErrorBody), rule: Rule::Same };
