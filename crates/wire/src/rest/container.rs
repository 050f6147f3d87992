//! Containers, for SDKs up to 4.5.

use serde::{Deserialize, Serialize};

use crate::id::ContainerId;
use crate::json;

/// Body of `POST /v2/containers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    #[serde(default)]
    pub name: String,
    pub location: String,
    #[serde(default)]
    pub description: String,
    /// `docker`, `singularity`, `shifter`, …
    #[serde(rename = "type")]
    pub container_type: String,
}

/// Response to a registration and to a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    pub container_id: ContainerId,
}

/// Response of `GET /v2/containers/{id}/{type}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerResponse {
    pub container: Container,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    pub container_uuid: ContainerId,
    pub name: String,
    #[serde(rename = "type")]
    pub container_type: String,
    pub location: String,
}

/// Body of `POST /v2/containers/build`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default, deserialize_with = "json::list")]
    pub apt: Vec<String>,
    #[serde(default, deserialize_with = "json::list")]
    pub pip: Vec<String>,
    #[serde(default, deserialize_with = "json::list")]
    pub conda: Vec<String>,
    /// Sent as null if there is none.
    #[serde(default)]
    pub payload_url: Option<String>,
}

/// Response of `GET /v2/containers/build/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildStatus {
    pub status: String,
}
