//! Endpoints: registering, listing, status, locking.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::extensions::Capabilities;
use crate::id::{EndpointId, FunctionId, IdentityId, PolicyId, SubscriptionId};
use crate::json::{self, FreeForm, Object, present};

/// Body of `POST /v3/endpoints` (the service chooses the id) and of `PUT /v3/endpoints/{id}`.
///
/// The answer is a [`crate::queue::Registration`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Register {
    pub endpoint_name: String,
    /// Absent: unchanged. Empty: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// True or absent. Since 3.12 it says whether the endpoint can run as other users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multi_user: Option<bool>,
    #[serde(default, deserialize_with = "json::bounded")]
    pub metadata: Metadata,
    /// Absent: all functions are allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_functions: Option<Vec<FunctionId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication_policy: Option<PolicyId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription_uuid: Option<SubscriptionId>,
    /// Whether others see it in lists. It gives no permission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high_assurance: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admins: Option<Vec<IdentityId>>,
}

/// Body of `PUT /v3/endpoints/{id}` without `endpoint_name`: changes the attributes of a registered endpoint, and leaves
/// its connections and credentials as they are. Absent attributes are unchanged.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// If present, whatever its value, the body is a [`Register`].
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
    /// Members that only a registration can change.
    #[serde(flatten)]
    pub others: Object,
}

/// What an endpoint reports about itself. The service stores it, and reads only `farcall`.
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
    /// Of a manager: the schema of its template; null if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub user_config_schema: Option<Value>,
    /// Up to 4.5: the configuration, parsed.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub config: Option<Value>,
    /// Farcall's addition: see [`crate::extensions`].
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
    /// Also those of others that the caller may see or use.
    Any,
}

/// An endpoint in the response of `GET /v2/endpoints`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub uuid: EndpointId,
    pub name: String,
    /// Sent as null if there is none.
    #[serde(default)]
    pub display_name: Option<String>,
    pub owner: IdentityId,
}

/// Response of `GET /v2/endpoints/{id}`. A member is null if it has no value or if the caller may not see it.
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
    /// Farcall's addition, for those who manage the endpoint: what the service itself knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub farcall: Option<EndpointState>,
}

/// The state of an endpoint at the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointState {
    /// Whether it consumes from its queue now: an endpoint from its task queue, a manager from its command queue.
    pub consuming: bool,
    /// A problem that its owner should know of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
    pub tasks: TaskCounts,
}

/// The numbers of an endpoint's tasks in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCounts {
    pub waiting: i64,
    /// Acknowledged by the endpoint, and not ended.
    pub taken: i64,
    pub succeeded: i64,
    pub failed: i64,
    /// Results that arrived after their tasks had ended.
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

/// Response of `DELETE /v3/endpoints/{id}/lock`, which only Farcall has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unlocked {
    pub endpoint_id: EndpointId,
}

/// Response of `DELETE /v3/endpoints/{id}/tasks`, which only Farcall has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    pub endpoint_id: EndpointId,
    /// How many waiting tasks were ended with an error.
    pub dropped: usize,
}

/// A user endpoint in the response of `GET /v3/endpoints/{id}/user_endpoints`, which is Farcall's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserEndpoint {
    pub uuid: EndpointId,
    pub name: String,
    pub owner: IdentityId,
    /// Sent as null if the identity was removed.
    #[serde(default)]
    pub owner_name: Option<String>,
    pub status: Presence,
    /// Why it could not be started last, or how its last attempt to start went on; sent as null if it runs, or has run.
    #[serde(default)]
    pub last_failure: Option<String>,
    /// Why it ended last, or could not be started; sent as null if it never ended, or did not say why.
    #[serde(default)]
    pub last_end: Option<EndReason>,
    pub waiting: i64,
    /// Acknowledged by the user endpoint, and not ended.
    pub taken: i64,
}

/// Why a user endpoint ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndReason {
    pub reason: String,
    /// In UTC, as RFC 3339 has it. Sent as null if nobody knows.
    #[serde(default)]
    pub at: Option<String>,
}

/// Response of `GET /v3/endpoints/{id}/allowed_functions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowedFunctions {
    pub endpoint_id: EndpointId,
    /// False: all functions are allowed, and `functions` is empty.
    pub restricted: bool,
    pub functions: Vec<FunctionId>,
}
