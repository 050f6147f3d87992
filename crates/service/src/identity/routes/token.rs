//! `POST /v2/oauth2/token`: tokens for client identities (the grant `client_credentials`).

use axum::Json;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha512};
use wire::rest::auth::OPENID_SCOPE;
use wire::rest::auth::error::OAuthError;
use wire::rest::auth::token::{IdToken, Token, TokenAnswer};
use wire::{ClientId, IdentityId};

use super::failure::Failure;
use crate::ambient;
use crate::identity::scope::{self, ScopeError};
use crate::identity::{Identity, Issued};
use crate::origin::Origin;
use crate::proof;
use crate::store::Client;

/// A form as it came, each parameter once.
pub(super) struct Parameters(Vec<(String, String)>);

type Posted = Result<Form<Vec<(String, String)>>, FormRejection>;

impl Parameters {
    pub(super) fn read(posted: Posted) -> Result<Parameters, Failure> {
        let Form(pairs) =
            posted.map_err(|error| Failure::oauth(OAuthError::InvalidRequest, error.body_text()))?;
        for (at, (name, _)) in pairs.iter().enumerate() {
            if pairs[..at].iter().any(|(earlier, _)| earlier == name) {
                let text =
                    format!("the parameter {:?} is there twice", name.chars().take(50).collect::<String>());
                return Err(Failure::oauth(OAuthError::InvalidRequest, text));
            }
        }
        Ok(Parameters(pairs))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// The client that says who it is by HTTP Basic or in the form.
pub(super) async fn client(
    identity: &Identity,
    headers: &HeaderMap,
    form: &Parameters,
) -> Result<Client, Failure> {
    let (id, secret) = match proof::basic(headers) {
        Some(pair) => pair,
        None => match (form.get("client_id"), form.get("client_secret")) {
            (Some(id), Some(secret)) => (id.to_owned(), secret.to_owned()),
            _ => return Err(Failure::oauth(OAuthError::InvalidClient, "no client authentication")),
        },
    };
    let client = identity.client(&id, &secret).await?;
    client.ok_or_else(|| Failure::oauth(OAuthError::InvalidClient, "unknown client or wrong secret"))
}

pub(super) async fn token(
    State(identity): State<Identity>,
    origin: Origin,
    headers: HeaderMap,
    posted: Posted,
) -> Result<Response, Failure> {
    let form = Parameters::read(posted)?;
    match form.get("grant_type") {
        Some("client_credentials") => {}
        Some(_) => {
            return Err(Failure::oauth(
                OAuthError::UnsupportedGrantType,
                "only client_credentials is served",
            ));
        }
        None => return Err(Failure::oauth(OAuthError::InvalidRequest, "grant_type is missing")),
    }
    let client = client(&identity, &headers, &form).await?;
    let grants = scope::grants(form.get("scope").unwrap_or_default())
        .map_err(|error: ScopeError| Failure::oauth(OAuthError::InvalidScope, error.to_string()))?;
    let now = ambient::now();
    let issued = identity.issue(&client, &grants, now).await?;
    let mut tokens = issued.iter().map(answer);
    let token = tokens.next().ok_or_else(|| Failure::oauth(OAuthError::InvalidScope, "no scope"))?;
    let openid = grants.iter().any(|grant| grant.scopes.iter().any(|scope| scope == OPENID_SCOPE));
    let id_token = if openid {
        let claims = Claims::new(&client, &token.access_token, &origin, now);
        let key = identity.key().await?;
        Some(IdToken(
            tokio::task::block_in_place(|| key.sign(&claims))
                .map_err(crate::identity::IdentityError::from)?,
        ))
    } else {
        None
    };
    let answer = TokenAnswer { token, id_token, other_tokens: tokens.collect() };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response())
}

fn answer(issued: &Issued) -> Token {
    let life = issued.token.expires.duration_since(issued.token.issued);
    Token {
        access_token: issued.access_token.clone(),
        scope: issued.token.scope.clone(),
        expires_in: life.as_secs().unsigned_abs(),
        token_type: "Bearer".to_owned(),
        resource_server: issued.token.resource_server.clone(),
        refresh_token: None,
        state: None,
    }
}

/// What an id token says.
#[derive(Serialize)]
struct Claims {
    iss: String,
    sub: IdentityId,
    aud: ClientId,
    iat: i64,
    exp: i64,
    /// The left half of the access token's digest, which ties the two together.
    at_hash: String,
    preferred_username: String,
    name: String,
}

impl Claims {
    fn new(client: &Client, access_token: &str, origin: &Origin, now: Timestamp) -> Claims {
        let digest = Sha512::digest(access_token.as_bytes());
        Claims {
            iss: origin.to_string(),
            sub: client.id,
            aud: client.client_id(),
            iat: now.as_second(),
            exp: (now + crate::identity::TOKEN_LIFE).as_second(),
            at_hash: URL_SAFE_NO_PAD.encode(&digest[..32]),
            preferred_username: client.username.clone(),
            name: client.name.clone(),
        }
    }
}
