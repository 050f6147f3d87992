//! Projects, which own policies. The command `configure` creates one if it needs one.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{GroupId, IdentityId, ProjectId};
use crate::json;

/// Body of `POST /v2/api/projects`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Create {
    pub project: NewProject,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewProject {
    pub display_name: String,
    pub contact_email: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_ids: Option<Vec<IdentityId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_group_ids: Option<Vec<GroupId>>,
}

/// Response of `POST /v2/api/projects`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    pub project: Project,
}

/// Response of `GET /v2/api/projects`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Projects {
    pub projects: Vec<Project>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    pub id: ProjectId,
    pub display_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_name: Option<String>,
    pub contact_email: String,
    /// Null if there is none.
    #[serde(default)]
    pub admin_ids: Option<Vec<IdentityId>>,
    #[serde(default)]
    pub admin_group_ids: Option<Vec<GroupId>>,
    #[serde(default)]
    pub admins: Admins,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admins {
    #[serde(default, deserialize_with = "json::list")]
    pub identities: Vec<Value>,
    #[serde(default, deserialize_with = "json::list")]
    pub groups: Vec<Value>,
}
