//! Authentication policies: the requirements on a session.

use serde::{Deserialize, Serialize};

use crate::id::{PolicyId, ProjectId};
use crate::json;

/// Body of `POST /v2/api/policies`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Create {
    pub policy: NewPolicy,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewPolicy {
    pub project_id: ProjectId,
    pub display_name: String,
    pub description: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high_assurance: Option<bool>,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication_assurance_timeout: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required_mfa: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "json::list_or_null")]
    pub domain_constraints_include: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "json::list_or_null")]
    pub domain_constraints_exclude: Option<Vec<String>>,
}

/// Response of `POST /v2/api/policies` and of `GET /v2/api/policies/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyResponse {
    pub policy: Policy,
}

/// Response of `GET /v2/api/policies`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policies {
    pub policies: Vec<Policy>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    pub id: PolicyId,
    pub project_id: ProjectId,
    pub display_name: String,
    pub description: String,
    pub high_assurance: bool,
    pub required_mfa: bool,
    /// Seconds. Null if the policy has none; so are the lists.
    #[serde(default)]
    pub authentication_assurance_timeout: Option<u64>,
    #[serde(default, deserialize_with = "json::list_or_null")]
    pub domain_constraints_include: Option<Vec<String>>,
    #[serde(default, deserialize_with = "json::list_or_null")]
    pub domain_constraints_exclude: Option<Vec<String>>,
}
