//! `GET /v2/oauth2/userinfo`: who the token's identity is, and the identities linked with it.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use wire::rest::auth::identity::{Linked, UserInfo};
use wire::rest::auth::{AUTH_RESOURCE_SERVER, OPENID_SCOPE};

use super::failure::Failure;
use crate::ambient;
use crate::identity::Identity;
use crate::proof;

pub(super) async fn userinfo(
    State(identity): State<Identity>,
    headers: HeaderMap,
) -> Result<Json<UserInfo>, Failure> {
    let bearer = proof::bearer(&headers).ok_or_else(Failure::unauthorized)?;
    let token = identity.check(bearer, ambient::now()).await?.ok_or_else(Failure::unauthorized)?;
    if token.resource_server != AUTH_RESOURCE_SERVER || !token.covers(OPENID_SCOPE) {
        return Err(Failure::forbidden());
    }
    let client = identity.known(token.identity).await?.ok_or_else(Failure::unauthorized)?;
    Ok(Json(UserInfo {
        sub: client.id,
        preferred_username: client.username.clone(),
        name: Some(client.name.clone()),
        email: None,
        organization: None,
        identity_provider: None,
        identity_provider_display_name: None,
        last_authentication: None,
        identity_set: vec![Linked {
            sub: client.id,
            username: client.username,
            name: Some(client.name),
            email: None,
            organization: None,
            identity_provider: None,
            identity_provider_display_name: None,
            last_authentication: None,
        }],
    }))
}
