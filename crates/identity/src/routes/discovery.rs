//! `GET /.well-known/openid-configuration` and the keys that it names.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use wire::rest::auth::openid::Configuration;

use crate::clock;
use crate::failure::Failure;
use crate::http::host_names::Origin;
use crate::scope::AUTH_SCOPES;
use crate::{Identity, IdentityError};

pub(super) async fn configuration(origin: Origin) -> Json<Configuration> {
    let at = |path: &str| format!("{origin}{path}");
    let texts = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    Json(Configuration {
        issuer: origin.to_string(),
        authorization_endpoint: at("/v2/oauth2/authorize"),
        token_endpoint: at("/v2/oauth2/token"),
        userinfo_endpoint: at("/v2/oauth2/userinfo"),
        revocation_endpoint: at("/v2/oauth2/token/revoke"),
        jwks_uri: at("/jwk.json"),
        response_types_supported: texts(&["code"]),
        subject_types_supported: texts(&["public"]),
        id_token_signing_alg_values_supported: texts(&["RS512"]),
        scopes_supported: texts(&AUTH_SCOPES),
        claims_supported: texts(&[
            "at_hash",
            "aud",
            "email",
            "exp",
            "iat",
            "iss",
            "name",
            "nonce",
            "preferred_username",
            "sub",
        ]),
    })
}

pub(super) async fn keys(State(identity): State<Identity>) -> Result<Json<Value>, Failure> {
    let ring = identity.keys().ring().await.map_err(IdentityError::from)?;
    Ok(Json(json!({ "keys": ring.published(clock::now()) })))
}
