//! `GET` and `POST /v2/api/projects`, which `configure` calls when it makes a policy.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use serde_json::json;
use wire::rest::auth::MANAGE_PROJECTS_SCOPE;
use wire::rest::auth::project::{Admins, Create, Created, Project, Projects};

use super::bearer::Bearer;
use crate::failure::Failure;
use crate::{Identity, audit};

pub(super) async fn list(
    State(identity): State<Identity>,
    bearer: Bearer,
) -> Result<Json<Projects>, Failure> {
    let caller = bearer.with(MANAGE_PROJECTS_SCOPE)?.identity;
    let mut projects = Vec::new();
    for project in identity.projects_of(caller).await? {
        projects.push(describe(&identity, project).await?);
    }
    Ok(Json(Projects { projects }))
}

pub(super) async fn create(
    State(identity): State<Identity>,
    bearer: Bearer,
    body: Result<Json<Create>, JsonRejection>,
) -> Result<Json<Created>, Failure> {
    let caller = bearer.with(MANAGE_PROJECTS_SCOPE)?.identity;
    let Json(body) = body.map_err(|error| Failure::unread_body(&error, error.body_text()))?;
    let project = identity.add_project(caller, body.project).await?;
    audit::administered("project add", &project.id.to_string(), audit::Initiator::Identity(caller));
    Ok(Json(Created { project: describe(&identity, project).await? }))
}

async fn describe(identity: &Identity, project: store::Project) -> Result<Project, Failure> {
    let mut identities = Vec::new();
    for id in &project.admins {
        if let Some(admin) = identity.profile(*id).await? {
            identities.push(json!({
                "id": admin.id, "username": admin.username, "name": admin.name, "status": "used",
            }));
        }
    }
    Ok(Project {
        id: project.id,
        project_name: Some(project.display_name.clone()),
        display_name: project.display_name,
        contact_email: project.contact_email,
        admins: Admins {
            identities,
            groups: project.admin_groups.iter().map(|id| json!({ "id": id })).collect(),
        },
        admin_ids: Some(project.admins).filter(|ids| !ids.is_empty()),
        admin_group_ids: Some(project.admin_groups).filter(|ids| !ids.is_empty()),
    })
}
