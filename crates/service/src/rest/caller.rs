//! Identifies the caller by the access token, and limits how many requests each caller sends and has in progress.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use wire::IdentityId;
use wire::rest::auth::{COMPUTE_RESOURCE_SERVER, COMPUTE_SCOPE};
use wire::rest::error::Code;

use super::App;
use crate::clock;
use crate::http::failure::Failure;
use crate::http::in_progress::RequestInProgress;
use identity::http::arrival::peer;
use identity::http::{authorization_header, caller_log};
use store::Token;
use store::secret::Hash;

#[derive(Clone, Copy, Debug)]
pub(super) struct Caller(pub(super) IdentityId);

/// The caller with their token, for routes that hand out a credential: it must not outlive the token.
#[derive(Clone, Debug)]
pub(super) struct CallerToken {
    pub(super) token: Arc<Token>,
    pub(super) hash: Hash,
}

impl FromRequestParts<App> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Caller, Failure> {
        let CallerToken { token, .. } = CallerToken::from_request_parts(parts, app).await?;
        Ok(Caller(token.identity))
    }
}

impl FromRequestParts<App> for CallerToken {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<CallerToken, Failure> {
        let bearer = authorization_header::bearer(&parts.headers)
            .ok_or_else(|| Failure::new(Code::UserUnauthenticated, "A bearer token is needed here"))?;
        let now = clock::now();
        let Some(token) = app.identity.check(bearer, now).await? else {
            let why = app.identity.end_reason(bearer, peer(&parts.extensions), now).await?;
            let text =
                why.map_or_else(|| "The token is unknown or has ended".to_owned(), |it| it.to_string());
            return Err(Failure::new(Code::InvalidAuthToken, text));
        };
        caller_log::record_identity(token.identity);
        if token.resource_server != COMPUTE_RESOURCE_SERVER || !token.covers(COMPUTE_SCOPE) {
            return Err(Failure::new(Code::InsufficientAuthScope, "The token's scope does not reach here"));
        }
        app.rates.take(token.identity, now).map_err(Failure::too_many_requests)?;
        if let Some(in_progress) = parts.extensions.get::<RequestInProgress>() {
            let share = app.requests_at_once.take(token.identity, 1).ok_or_else(|| {
                Failure::unavailable(
                    "Too many requests of yours are answered at this moment; try again shortly",
                )
            })?;
            in_progress.hold_share(share);
        }
        parts.extensions.insert(Caller(token.identity));
        Ok(CallerToken { token, hash: Hash::of(bearer) })
    }
}
