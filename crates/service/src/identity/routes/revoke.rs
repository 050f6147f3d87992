//! `POST /v2/oauth2/token/revoke`. Answers alike for tokens that never were: it says nothing about them.

use axum::Json;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, State};
use axum::http::HeaderMap;
use wire::rest::auth::error::OAuthError;
use wire::rest::auth::token::Revoked;

use super::failure::Failure;
use super::token::{Parameters, client};
use crate::identity::Identity;

pub(super) async fn revoke(
    State(identity): State<Identity>,
    headers: HeaderMap,
    posted: Result<Form<Vec<(String, String)>>, FormRejection>,
) -> Result<Json<Revoked>, Failure> {
    let form = Parameters::read(posted)?;
    let client = client(&identity, &headers, &form).await?;
    let token = form
        .get("token")
        .ok_or_else(|| Failure::oauth(OAuthError::InvalidRequest, "the parameter token is missing"))?;
    identity.revoke(token, client.client_id()).await?;
    Ok(Json(Revoked { active: false }))
}
