//! `POST /v2/oauth2/token/introspect`: tells a resource server about a token that was presented to it.
//!
//! Only the token's own resource server learns about it; for all others it is not active, like an unknown one.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use wire::rest::auth::error::OAuthError;
use wire::rest::auth::token::{ActiveToken, Introspection};

use crate::applications::Application;
use crate::clock;
use crate::failure::Failure;
use crate::form::Form;
use crate::http::host_names::Origin;
use crate::id_token::linked;
use crate::{Identity, scope};
use store::{Method, Session};

pub(super) async fn introspect(
    State(identity): State<Identity>,
    origin: Origin,
    form: Form,
) -> Result<Response, Failure> {
    let now = clock::now();
    let application = form.application(&identity, now).await?;
    let Application::Confidential(client) = &*application else {
        return Err(Failure::oauth(OAuthError::InvalidClient, "introspection is for clients with a secret"));
    };
    let include = form.get("include").unwrap_or_default();
    let includes = |what: &str| include.split(',').any(|asked| asked.trim() == what);
    let token = identity.check(form.need("token")?, now).await?;
    let token = token.filter(|token| client.resource_server.as_ref() == Some(&token.resource_server));
    let session = match token.as_ref().and_then(|token| token.session) {
        Some(session) if includes("session_info") => identity.session_of(session).await?,
        _ => None,
    };
    let mut introspection = Introspection::default();
    if let Some(token) = token {
        let (profile, set) = identity.who(token.identity, now).await?;
        introspection.active = true;
        introspection.token = Some(ActiveToken {
            token_type: "Bearer".to_owned(),
            scope: token.scope.clone(),
            client_id: token.client,
            username: Some(profile.username),
            name: Some(profile.name),
            email: profile.email,
            exp: token.expires.as_second(),
            iat: token.issued.as_second(),
            nbf: token.issued.as_second(),
            sub: token.identity,
            aud: scope::audience(&token.resource_server, token.client),
            iss: origin.to_string(),
            identity_set: includes("identity_set").then(|| set.iter().map(|profile| profile.id).collect()),
            session_info: session.map(|session| session_info(&session)),
            identity_set_detail: includes("identity_set_detail").then(|| set.iter().map(linked).collect()),
        });
    }
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(introspection)).into_response())
}

/// When and how the person of a session signed in, for resource servers that require it.
fn session_info(session: &Session) -> Value {
    let authentications = session.authentications.iter().map(|it| {
        let mut ways = vec![match it.method {
            Method::Password => "pwd",
            Method::Upstream(_) => "fed",
        }];
        ways.extend(it.mfa.then_some("mfa"));
        (it.identity.to_string(), json!({ "auth_time": it.at.as_second(), "amr": ways }))
    });
    json!({ "session_id": session.id, "authentications": authentications.collect::<Map<_, _>>() })
}
