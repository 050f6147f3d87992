//! The version of the service, and the oldest clients that it supports.

use serde::{Deserialize, Serialize};

/// Query of `GET /v2/version`. With `service=all` the answer is [`Versions`], otherwise only the string `api`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

impl Query {
    pub fn wants_all(&self) -> bool {
        self.service.as_deref() == Some("all")
    }
}

/// Clients older than the minimum refuse to work; they fail if it is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    pub api: String,
    pub min_sdk_version: String,
    pub min_ep_version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_sha: Option<String>,
}
