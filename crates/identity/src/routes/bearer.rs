//! Authenticates the caller of a route of the identity service by a bearer token.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use wire::rest::auth::AUTH_RESOURCE_SERVER;

use crate::Identity;
use crate::clock;
use crate::failure::Failure;
use crate::http::arrival::peer;
use crate::http::{authorization_header, caller_log};
use store::Token;

pub(super) struct Bearer(pub(super) Arc<Token>);

impl Bearer {
    /// Refuses unless the token has `scope`.
    pub(super) fn with(self, scope: &str) -> Result<Arc<Token>, Failure> {
        if self.0.covers(scope) { Ok(self.0) } else { Err(Failure::forbidden()) }
    }
}

impl FromRequestParts<Identity> for Bearer {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, identity: &Identity) -> Result<Bearer, Failure> {
        let bearer = authorization_header::bearer(&parts.headers).ok_or_else(Failure::unauthorized)?;
        let now = clock::now();
        let Some(token) = identity.check(bearer, now).await? else {
            let why = identity.end_reason(bearer, peer(&parts.extensions), now).await?;
            return Err(Failure::ended(why));
        };
        caller_log::record_identity(token.identity);
        if token.resource_server != AUTH_RESOURCE_SERVER {
            return Err(Failure::forbidden());
        }
        Ok(Bearer(token))
    }
}
