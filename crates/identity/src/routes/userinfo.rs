//! `GET` and `POST /v2/oauth2/userinfo`: the token's identity, and the identities linked with it.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use wire::rest::auth::OPENID_SCOPE;
use wire::rest::auth::identity::UserInfo;

use super::bearer::Bearer;
use crate::Identity;
use crate::clock;
use crate::failure::Failure;
use crate::id_token::linked;

pub(super) async fn userinfo(
    State(identity): State<Identity>,
    bearer: Bearer,
) -> Result<Json<UserInfo>, Failure> {
    let token = bearer.with(OPENID_SCOPE)?;
    let (profile, set) = identity.who(token.identity, clock::now()).await?;
    Ok(Json(UserInfo {
        sub: profile.id,
        preferred_username: profile.username,
        name: Some(profile.name),
        email: profile.email,
        organization: profile.organization,
        identity_provider: None,
        identity_provider_display_name: None,
        last_authentication: profile.authenticated.map(Timestamp::as_second),
        identity_set: set.iter().map(linked).collect(),
    }))
}
