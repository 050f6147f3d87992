//! The identities of persons and of clients.

use serde::{Deserialize, Serialize};

use crate::id::IdentityId;

/// Response of `GET /v2/oauth2/userinfo`.
///
/// A manager without privileges needs the `sub` of each identity in the set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserInfo {
    pub sub: IdentityId,
    pub preferred_username: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_provider: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_provider_display_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_authentication: Option<i64>,
    pub identity_set: Vec<Linked>,
}

/// One of a person's identities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Linked {
    pub sub: IdentityId,
    pub username: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_provider: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_provider_display_name: Option<String>,
    /// Null if there was no log-in with it.
    #[serde(default)]
    pub last_authentication: Option<i64>,
}

/// Query of `GET /v2/api/identities`: either ids or names, separated by commas.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usernames: Option<String>,
}

/// Response of `GET /v2/api/identities`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identities {
    pub identities: Vec<Identity>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub id: IdentityId,
    pub username: String,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub email: Option<String>,
    #[serde(default)]
    pub organization: Option<String>,
    pub status: String,
    #[serde(default)]
    pub identity_provider: Option<String>,
    #[serde(default)]
    pub identity_type: Option<String>,
}
