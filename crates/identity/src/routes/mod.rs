//! The HTTP routes of the identity service, one file per route.

mod bearer;
mod discovery;
mod failure_response;
mod identities;
mod introspect;
mod my_groups;
mod policies;
mod projects;
mod revoke;
mod token;
mod userinfo;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};

use super::Identity;

/// The most that a form may measure.
const FORM_LIMIT: usize = 64 << 10;

pub fn router(identity: Identity) -> Router {
    Router::new()
        .route("/.well-known/openid-configuration", get(discovery::configuration))
        .route("/jwk.json", get(discovery::keys))
        .route("/v2/oauth2/token", post(token::token))
        .route("/v2/oauth2/token/revoke", post(revoke::revoke))
        .route("/v2/oauth2/token/introspect", post(introspect::introspect))
        .route("/v2/oauth2/userinfo", get(userinfo::userinfo).post(userinfo::userinfo))
        .route("/v2/api/identities", get(identities::identities))
        .route("/v2/api/projects", get(projects::list).post(projects::create))
        .route("/v2/api/policies", get(policies::list).post(policies::create))
        .route("/v2/api/policies/{id}", get(policies::get))
        .route("/v2/groups/my_groups", get(my_groups::list))
        .layer(DefaultBodyLimit::max(FORM_LIMIT))
        .with_state(identity)
}
