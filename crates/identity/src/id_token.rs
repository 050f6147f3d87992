//! Id tokens: signed statements of who logged in, for the application that requested one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha512};
use wire::rest::auth::identity::Linked;
use wire::rest::auth::token::IdToken;
use wire::{ClientId, IdentityId};

use super::tokens::TOKEN_LIFE;
use super::{Identity, IdentityError};
use crate::http::host_names::Origin;
use store::Profile;

/// The content of an id token.
#[derive(Clone, Copy, Debug)]
pub struct IdTokenContent<'a> {
    pub identity: IdentityId,
    /// The application that it is for.
    pub client: ClientId,
    /// The access token issued with it; its digest becomes a claim.
    pub access_token: &'a str,
    /// The value that the application sent to find in it again.
    pub nonce: Option<&'a str>,
    /// When the person signed in.
    pub authenticated: Option<Timestamp>,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: String,
    sub: IdentityId,
    aud: ClientId,
    iat: i64,
    exp: i64,
    /// The left half of the access token's digest.
    at_hash: String,
    preferred_username: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    organization: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_authentication: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<&'a str>,
    identity_set: Vec<Linked>,
}

impl Identity {
    pub async fn id_token(
        &self,
        statement: IdTokenContent<'_>,
        origin: &Origin,
        now: Timestamp,
    ) -> Result<IdToken, IdentityError> {
        let (profile, set) = self.who(statement.identity, now).await?;
        let digest = Sha512::digest(statement.access_token.as_bytes());
        let claims = Claims {
            iss: origin.to_string(),
            sub: profile.id,
            aud: statement.client,
            iat: now.as_second(),
            exp: (now + TOKEN_LIFE).as_second(),
            at_hash: URL_SAFE_NO_PAD.encode(&digest[..32]),
            last_authentication: profile.authenticated.map(Timestamp::as_second),
            preferred_username: profile.username,
            name: profile.name,
            email: profile.email,
            organization: profile.organization,
            auth_time: statement.authenticated.map(Timestamp::as_second),
            nonce: statement.nonce,
            identity_set: set.iter().map(linked).collect(),
        };
        let ring = self.keys.ring().await?;
        Ok(IdToken(tokio::task::block_in_place(|| ring.sign(&claims))?))
    }
}

/// One identity of a set, as clients see it.
pub fn linked(profile: &Profile) -> Linked {
    Linked {
        sub: profile.id,
        username: profile.username.clone(),
        name: Some(profile.name.clone()),
        email: profile.email.clone(),
        organization: profile.organization.clone(),
        identity_provider: None,
        identity_provider_display_name: None,
        last_authentication: profile.authenticated.map(Timestamp::as_second),
    }
}
