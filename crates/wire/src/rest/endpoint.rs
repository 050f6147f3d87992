//! Endpoints: registered, listed, asked for their state, locked.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::extensions::Capabilities;
use crate::id::{EndpointId, FunctionId, IdentityId, PolicyId, SubscriptionId};
use crate::json::{self, FreeForm, Object, present};

/// Body of `POST /v3/endpoints` (the service gives the id) and `PUT /v3/endpoints/{id}`.
///
/// The answer is a [`crate::queue::Registration`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Register {
    pub endpoint_name: String,
    /// Absent: stays as it was. Empty: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Only ever true. Since 3.12: whether the endpoint may become other users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multi_user: Option<bool>,
    #[serde(default, deserialize_with = "json::bounded")]
    pub metadata: Metadata,
    /// Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_functions: Option<Vec<FunctionId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication_policy: Option<PolicyId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription_uuid: Option<SubscriptionId>,
    /// Whether others see it in lists; no permission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high_assurance: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admins: Option<Vec<IdentityId>>,
}

/// Body of `PUT /v3/endpoints/{id}` without `endpoint_name`: changes what is said of an endpoint that is there, and leaves
/// its connections and credentials alone. What is absent stays as it was.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Present, whatever it is: the body is a [`Register`].
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub endpoint_name: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_functions: Option<Vec<FunctionId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admins: Option<Vec<IdentityId>>,
    /// What only a registration changes.
    #[serde(flatten)]
    pub others: Object,
}

/// What an endpoint says of itself. The service keeps it and understands `farcall` only.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python_version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_user: Option<String>,
    /// The text of the configuration file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_config: Option<String>,
    /// Of a manager: the text of its template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_config_template: Option<String>,
    /// Of a manager: an object, or null without one.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub user_config_schema: Option<Value>,
    /// Up to 4.5: the configuration once more, parsed.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub config: Option<Value>,
    /// Ours: see [`crate::extensions`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub farcall: Option<Capabilities>,
    #[serde(flatten)]
    pub others: Object,
}

/// Query of `GET /v2/endpoints`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

/// Whose endpoints to list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    #[default]
    Owner,
    /// Those the asker can see or use besides.
    Any,
}

/// One of the answer to `GET /v2/endpoints`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub uuid: EndpointId,
    pub name: String,
    /// Crosses the wire as null without one.
    #[serde(default)]
    pub display_name: Option<String>,
    pub owner: IdentityId,
}

/// Response of `GET /v2/endpoints/{id}`. What is absent is null, or none of the asker's business.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    pub uuid: EndpointId,
    pub name: String,
    #[serde(default)]
    pub display_name: Option<String>,
    #[serde(default)]
    pub multi_user: bool,
    #[serde(default)]
    pub public: bool,
    #[serde(default)]
    pub endpoint_config: Option<String>,
    #[serde(default)]
    pub user_config_template: Option<String>,
    #[serde(default)]
    pub user_config_schema: Option<Value>,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub hostname: Option<String>,
    #[serde(default)]
    pub local_user: Option<String>,
    #[serde(default)]
    pub ip_address: Option<String>,
    #[serde(default)]
    pub endpoint_version: Option<String>,
    #[serde(default)]
    pub sdk_version: Option<String>,
    #[serde(default)]
    pub subscription_uuid: Option<SubscriptionId>,
}

/// Response of `GET /v2/endpoints/{id}/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub status: Presence,
    /// `global_state` of the last heartbeat.
    #[serde(default)]
    pub details: FreeForm,
    /// Ours: what the service itself sees, for those who manage the endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub farcall: Option<EndpointState>,
}

/// How an endpoint stands with the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointState {
    /// Whether it takes tasks, or a manager commands, from its queue at this moment.
    pub consuming: bool,
    /// What its owner should know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
    pub tasks: TaskCounts,
}

/// How many of an endpoint's tasks stand where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCounts {
    pub waiting: i64,
    /// Acknowledged by the endpoint and not ended.
    pub taken: i64,
    pub succeeded: i64,
    pub failed: i64,
    /// Results that came for tasks that had ended.
    pub late: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    Online,
    Offline,
}

/// Response of `POST /v3/endpoints/{id}/lock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locked {
    pub endpoint_id: EndpointId,
    /// `2021-07-01T00:00:00.000000`
    pub lock_expiration_timestamp: String,
}

/// Response of `DELETE /v3/endpoints/{id}/lock`: ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unlocked {
    pub endpoint_id: EndpointId,
}

/// Response of `DELETE /v3/endpoints/{id}/tasks`: ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    pub endpoint_id: EndpointId,
    /// How many tasks ended with an error instead of waiting on.
    pub dropped: usize,
}

/// Response of `GET /v3/endpoints/{id}/allowed_functions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowedFunctions {
    pub endpoint_id: EndpointId,
    /// False: all are allowed, and `functions` is empty.
    pub restricted: bool,
    pub functions: Vec<FunctionId>,
}
