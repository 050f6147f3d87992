//! Consents: what a person allowed an application to do in their name. No released client of compute requests them.

use serde::{Deserialize, Serialize};
use serde_json::Number;

use crate::id::{ClientId, IdentityId};

/// Query of `GET /v2/api/identities/{id}/consents`: `all` is `True` or `False`, as Python writes them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<String>,
}

/// Response of `GET /v2/api/identities/{id}/consents`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consents {
    pub consents: Vec<Consent>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    pub id: Number,
    pub status: String,
    pub scope_name: String,
    pub scope: uuid::Uuid,
    pub client: ClientId,
    pub effective_identity: IdentityId,
    /// The consents that this one depends on; the last is this one.
    pub dependency_path: Vec<Number>,
    pub allows_refresh: bool,
    pub atomically_revocable: bool,
    pub auto_approved: bool,
    pub created: String,
    pub updated: String,
    pub last_used: String,
}
