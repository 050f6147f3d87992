//! The start of a user endpoint: the command that its manager receives, and the document that it reads itself.

use serde::{Deserialize, Serialize};

use crate::id::{EndpointId, FunctionId, IdentityId};
use crate::json::{self, FreeForm, Malformed, Object};
use crate::queue::Registration;
use crate::rest::submit::UserRuntime;

/// The only command that upstream's managers know.
pub const START_ENDPOINT: &str = "cmd_start_endpoint";

/// The content type of a command. Upstream's managers ignore a command that has another or none.
pub const CONTENT_TYPE: &str = "application/json";

/// The maximum size of a command and of a start document, in bytes.
pub const LIMIT: usize = 1 << 20;

/// Tells a manager to start a user endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartEndpoint {
    pub command: String,
    #[serde(default)]
    pub args: Vec<String>,
    pub kwargs: StartArguments,
    pub globus_username: String,
    pub globus_effective_identity: IdentityId,
    pub globus_identity_set: Vec<LinkedIdentity>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartArguments {
    pub name: String,
    /// The submitter's `user_endpoint_config`.
    #[serde(default)]
    pub user_opts: FreeForm,
    #[serde(default)]
    pub user_runtime: Option<UserRuntime>,
    pub amqp_creds: Registration,
}

/// One of a person's identities, as identity mapping sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkedIdentity {
    pub sub: IdentityId,
    #[serde(flatten)]
    pub rest: Object,
}

/// The directory name of a user endpoint.
pub fn user_endpoint_name(manager: EndpointId, user_endpoint: EndpointId) -> String {
    format!("uep.{manager}.{user_endpoint}")
}

impl StartEndpoint {
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        json::decode(bytes, LIMIT)
    }

    pub fn encode(&self) -> Vec<u8> {
        json::encode(self)
    }
}

/// What an endpoint writes to the descriptor of `start --report-fd`: that it runs (status 0), or why not. When it exits
/// without a report, it has printed the reason itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub status: u8,
    pub text: String,
}

/// What a user endpoint reads from standard input: its configuration and its credentials.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartDocument {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amqp_creds: Option<Registration>,
    /// The rendered template: YAML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// Copied into the endpoint's heartbeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ep_info: Option<FreeForm>,
    /// Replaces the configuration's list, when present. An empty list allows no function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_functions: Option<Vec<FunctionId>>,
    /// With audit logging: the inherited descriptor to write it to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_fd: Option<i32>,
    /// Descriptor and key of the credentials that upstream's managers of 4.16 and later renew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem_fd: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enckey: Option<String>,
}

impl StartDocument {
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        json::decode(bytes, LIMIT)
    }

    pub fn encode(&self) -> Vec<u8> {
        json::encode(self)
    }
}
