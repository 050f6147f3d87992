//! The HTTP routes of the identity service, one file per route.

mod bearer;
mod discovery;
pub mod failure;
pub mod form;
mod identities;
mod introspect;
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
        .layer(DefaultBodyLimit::max(FORM_LIMIT))
        .with_state(identity)
}
