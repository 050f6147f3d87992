//! Parses the forms of the token routes, and authenticates the application that sends one.
//!
//! A form with a repeated parameter is refused, because a proxy before the service could read the other value; so is a
//! request that has parameters in its URL as well.

use axum::extract::FromRequest;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form as Posted, Request};
use axum::http::{HeaderMap, header};
use jiff::Timestamp;
use std::net::IpAddr;
use std::sync::Arc;
use wire::ClientId;
use wire::rest::auth::error::OAuthError;

use super::failure::Failure;
use crate::Identity;
use crate::applications::Application;
use crate::http::arrival::peer;
use crate::http::{authorization_header, caller_log};

/// The most parameters that a form may have.
const MOST: usize = 40;

/// A received form, each parameter once, with the headers of its request.
pub struct Form {
    pairs: Vec<(String, String)>,
    headers: HeaderMap,
    /// The address of the sender.
    pub peer: IpAddr,
}

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Form, Failure> {
        let headers = request.headers().clone();
        let peer = peer(request.extensions());
        if request.uri().query().is_some_and(|query| !query.is_empty()) {
            return Err(invalid("parameters belong into the form, not into the URL"));
        }
        let posted: Result<Posted<Vec<(String, String)>>, FormRejection> =
            Posted::from_request(request, state).await;
        let Posted(pairs) = posted.map_err(|error| Failure::unread_form(&error, error.body_text()))?;
        once(&pairs).map_err(invalid)?;
        Ok(Form { pairs, headers, peer })
    }
}

/// Fails unless each name in `pairs` occurs once, there are not too many, and all texts can be stored.
pub(super) fn once(pairs: &[(String, String)]) -> Result<(), String> {
    if pairs.len() > MOST {
        return Err(format!("more than {MOST} parameters"));
    }
    for (at, (name, _)) in pairs.iter().enumerate() {
        if pairs[..at].iter().any(|(earlier, _)| earlier == name) {
            let shown: String = name.chars().take(50).collect();
            return Err(format!("the parameter {shown:?} is there twice"));
        }
    }
    if let Some((name, _)) = pairs.iter().find(|(name, value)| name.contains('\0') || value.contains('\0')) {
        let shown: String = name.chars().take(50).collect();
        return Err(format!("the parameter {shown:?} holds the character NUL"));
    }
    Ok(())
}

fn invalid(text: impl Into<String>) -> Failure {
    Failure::oauth(OAuthError::InvalidRequest, text)
}

impl Form {
    /// A parameter; one without a value counts as absent, as OAuth says.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        found.filter(|value| !value.is_empty())
    }

    pub fn need(&self, name: &str) -> Result<&str, Failure> {
        self.get(name).ok_or_else(|| invalid(format!("the parameter {name} is missing")))
    }

    /// The application that sends this form: by HTTP Basic, by id and secret in the form, or, if it keeps no secret, by
    /// its id alone.
    pub async fn application(
        &self,
        identity: &Identity,
        now: Timestamp,
    ) -> Result<Arc<Application>, Failure> {
        let refused = |text: &str| Failure::oauth(OAuthError::InvalidClient, text);
        let (named, secret) = (self.get("client_id"), self.get("client_secret"));
        let application = if self.headers.contains_key(header::AUTHORIZATION) {
            let (id, password) = authorization_header::basic(&self.headers)
                .ok_or_else(|| refused("the header Authorization is not understood"))?;
            if secret.is_some() {
                return Err(invalid("a client shows who it is in one way, not in two"));
            }
            if named.is_some_and(|named| named != id) {
                return Err(invalid("client_id names another client than the header Authorization"));
            }
            identity.client(&id, &password, now).await?
        } else {
            match (named, secret) {
                (Some(id), Some(secret)) => identity.client(id, secret, now).await?,
                (Some(id), None) => match id.parse::<ClientId>() {
                    Ok(id) => identity
                        .application(id, now)
                        .await?
                        .filter(|known| matches!(**known, Application::Native(_))),
                    Err(_) => None,
                },
                (None, _) => return Err(refused("no client authentication")),
            }
        };
        if let Some(application) = application {
            caller_log::record_client(application.id());
            return Ok(application);
        }
        // A caller with the secret of a disabled client learns that it is disabled.
        let basic = authorization_header::basic(&self.headers);
        let shown = match &basic {
            Some((id, secret)) => Some((id.as_str(), secret.as_str())),
            None => named.zip(secret),
        };
        if let Some((id, secret)) = shown
            && let Some(ended) = identity.disabled_client(id, secret).await?
        {
            return Err(refused(&ended.to_string()));
        }
        Err(refused("unknown client or wrong secret"))
    }
}
