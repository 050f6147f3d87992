//! Containers in the messages of old SDKs and endpoints. They are still accepted, and never sent.

use serde::{Deserialize, Serialize};

use crate::id::ContainerId;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    pub container_id: ContainerId,
    pub name: String,
    pub images: Vec<ContainerImage>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerImage {
    pub image_type: String,
    pub location: String,
    pub created_at: i64,
    pub modified_at: i64,
    #[serde(default)]
    pub build_status: Option<String>,
    #[serde(default)]
    pub build_stderr: Option<String>,
}
