//! `GET` and `POST /v2/api/policies`, and `GET /v2/api/policies/{id}`.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use wire::PolicyId;
use wire::rest::auth::MANAGE_PROJECTS_SCOPE;
use wire::rest::auth::policy::{Create, Policies, Policy, PolicyResponse};

use super::bearer::Bearer;
use crate::failure::Failure;
use crate::{Identity, audit};

pub(super) async fn list(
    State(identity): State<Identity>,
    bearer: Bearer,
) -> Result<Json<Policies>, Failure> {
    let caller = bearer.with(MANAGE_PROJECTS_SCOPE)?.identity;
    let policies = identity.policies_of(caller).await?.into_iter().map(describe).collect();
    Ok(Json(Policies { policies }))
}

pub(super) async fn get(
    State(identity): State<Identity>,
    bearer: Bearer,
    Path(id): Path<String>,
) -> Result<Json<PolicyResponse>, Failure> {
    let caller = bearer.with(MANAGE_PROJECTS_SCOPE)?.identity;
    let id: PolicyId = id.parse().map_err(|_| Failure::bad_parameter("the policy's id is not a UUID"))?;
    let found = identity.policies_of(caller).await?.into_iter().find(|policy| policy.id == id);
    let policy = found.ok_or_else(|| Failure::not_found("There is no such policy"))?;
    Ok(Json(PolicyResponse { policy: describe(policy) }))
}

pub(super) async fn create(
    State(identity): State<Identity>,
    bearer: Bearer,
    body: Result<Json<Create>, JsonRejection>,
) -> Result<Json<PolicyResponse>, Failure> {
    let caller = bearer.with(MANAGE_PROJECTS_SCOPE)?.identity;
    let Json(body) = body.map_err(|error| Failure::unread_body(&error, error.body_text()))?;
    let policy = identity.add_policy(caller, body.policy).await?;
    audit::administered("policy add", &policy.id.to_string(), audit::Initiator::Identity(caller));
    Ok(Json(PolicyResponse { policy: describe(policy) }))
}

fn describe(policy: store::Policy) -> Policy {
    Policy {
        id: policy.id,
        project_id: policy.project,
        display_name: policy.display_name,
        description: policy.description,
        high_assurance: policy.high_assurance,
        required_mfa: policy.required_mfa,
        authentication_assurance_timeout: policy.authentication_assurance_timeout,
        domain_constraints_include: policy.domain_constraints_include,
        domain_constraints_exclude: policy.domain_constraints_exclude,
    }
}
