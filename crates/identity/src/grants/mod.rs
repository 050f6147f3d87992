//! OAuth grants, behind `POST /v2/oauth2/token`: one file each.
//!
//! A grant gets the authenticated application and the form, and answers or fails in OAuth's form. A new grant is a file
//! here and a line in [`answer`].

mod authorization_code;
mod client_credentials;
mod dependent_token;
mod refresh_token;

use jiff::Timestamp;
use serde::Serialize;
use wire::IdentityId;
use wire::rest::auth::error::OAuthError;
use wire::rest::auth::token::{IdToken, Token, TokenResponse};

use super::applications::Application;
use super::scope::{self, Grant};
use super::{Identity, audit};
use crate::failure::Failure;
use crate::form::Form;
use crate::http::host_names::Origin;
use store::Client;

/// A request for tokens.
pub struct TokenRequest<'a> {
    pub identity: &'a Identity,
    pub origin: &'a Origin,
    pub application: &'a Application,
    pub form: &'a Form,
    pub now: Timestamp,
}

/// The tokens of a grant.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Granted {
    /// The first token at the top, the others in `other_tokens`.
    Tokens(TokenResponse),
    Dependent(Vec<Token>),
}

pub async fn answer(request: TokenRequest<'_>) -> Result<Granted, Failure> {
    let grant_type = request.form.need("grant_type")?;
    let client = request.application.id();
    let (name, answered) = match grant_type {
        authorization_code::GRANT_TYPE => {
            (authorization_code::GRANT_TYPE, authorization_code::answer(&request).await)
        }
        refresh_token::GRANT_TYPE => (refresh_token::GRANT_TYPE, refresh_token::answer(&request).await),
        "client_credentials" => ("client_credentials", client_credentials::answer(&request).await),
        dependent_token::GRANT_TYPE => ("dependent_token", dependent_token::answer(&request).await),
        _ => ("unknown", Err(Failure::oauth(OAuthError::UnsupportedGrantType, "this grant is not served"))),
    };
    answered.inspect_err(|failure| audit::token_refused(name, Some(client), failure.oauth_error()))
}

impl TokenRequest<'_> {
    /// The application, if it authenticated with a secret.
    fn confidential(&self) -> Result<&Client, Failure> {
        match self.application {
            Application::Confidential(client) => Ok(client),
            Application::Native(_) => {
                Err(Failure::oauth(OAuthError::UnauthorizedClient, "this grant is for clients with a secret"))
            }
        }
    }

    /// Refuses if `identity` is over the rate limit of token requests.
    fn check_rate(&self, identity: IdentityId) -> Result<(), Failure> {
        self.identity.may_ask_for_tokens(identity, self.now).map_err(Failure::too_many_requests)
    }

    /// The tokens that the form's `scope` asks for.
    fn scopes(&self) -> Result<Vec<Grant>, Failure> {
        scope::grants(self.form.get("scope").unwrap_or_default())
            .map_err(|error| Failure::oauth(OAuthError::InvalidScope, error.to_string()))
    }
}

/// For an account or application that was disabled after the grant was checked.
fn account_disabled() -> Failure {
    Failure::oauth(
        OAuthError::InvalidGrant,
        "the account or the application is disabled, was removed, or got another secret meanwhile",
    )
}

/// The answer of every grant but `dependent_token`.
pub(super) fn token_response(mut tokens: Vec<Token>, id_token: Option<IdToken>) -> Result<Granted, Failure> {
    if tokens.is_empty() {
        return Err(Failure::oauth(OAuthError::InvalidScope, "no scope"));
    }
    let other_tokens = tokens.split_off(1);
    let token = tokens.remove(0);
    Ok(Granted::Tokens(TokenResponse { token, id_token, other_tokens }))
}
