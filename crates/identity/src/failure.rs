//! Error answers of the identity service: OAuth's form on the token routes, Globus Auth's list of errors elsewhere.

use std::error::Error;

use wire::rest::auth::error::{ErrorBody, OAuthError};

use crate::IdentityError;
use crate::end_reason::EndReason;
use crate::http::interrupted_body::InterruptedBody;
use crate::projects::ProjectError;
use crate::store_failure::{RETRY_AFTER, StoreFailure};
use store::StoreError;

#[derive(Debug)]
pub struct Failure {
    pub(crate) status: u16,
    /// The `Retry-After` header, in seconds.
    pub(crate) retry_after: Option<u32>,
    // Boxed: it travels in every `Result`.
    pub(crate) body: Box<ErrorBody>,
}

impl Failure {
    pub fn oauth(error: OAuthError, description: impl Into<String>) -> Failure {
        let body = Box::new(ErrorBody::oauth(error, description));
        Failure { status: error.http_status(), retry_after: None, body }
    }

    pub fn too_many_requests(retry_after: u32) -> Failure {
        let text = format!("too many tokens were asked for; come again in {retry_after} s");
        let refused = Failure::oauth(OAuthError::TemporarilyUnavailable, text);
        Failure { retry_after: Some(retry_after), ..refused }
    }

    /// OAuth's name of the error. Errors without one, such as failures of the service, are `invalid_request`.
    pub fn oauth_error(&self) -> OAuthError {
        let known = self.body.error.as_deref().and_then(|name| serde_json::from_value(name.into()).ok());
        known.unwrap_or(OAuthError::InvalidRequest)
    }

    pub fn unauthorized() -> Failure {
        Failure::new(401, "UNAUTHORIZED", "Unauthorized", "Call must be authenticated")
    }

    /// For a token that is no longer valid.
    pub fn ended(why: Option<EndReason>) -> Failure {
        match why {
            Some(why) => Failure::new(401, "UNAUTHORIZED", "Unauthorized", why.to_string()),
            None => Failure::unauthorized(),
        }
    }

    pub fn forbidden() -> Failure {
        Failure::new(403, "FORBIDDEN", "Forbidden", "The token's scope does not reach here")
    }

    /// The token lacks this scope.
    pub fn needs(scope: &str) -> Failure {
        let text = format!("This needs a token with the scope {scope}");
        Failure::new(403, "FORBIDDEN", "Forbidden", text)
    }

    pub fn bad_parameter(detail: impl Into<String>) -> Failure {
        Failure::new(400, "BAD_REQUEST", "Bad request", detail)
    }

    pub fn not_found(detail: impl Into<String>) -> Failure {
        Failure::new(404, "NOT_FOUND", "Not found", detail)
    }

    /// The form of a token route could not be read.
    pub(crate) fn unread_form(error: &(dyn Error + 'static), text: String) -> Failure {
        let Some(interrupted) = InterruptedBody::behind(error) else {
            return Failure::oauth(OAuthError::InvalidRequest, text);
        };
        let error = match interrupted {
            InterruptedBody::TooSlow => OAuthError::InvalidRequest,
            InterruptedBody::MadeRoom => OAuthError::TemporarilyUnavailable,
        };
        Failure {
            status: interrupted.status(),
            retry_after: interrupted.retry_after(),
            ..Failure::oauth(error, interrupted.to_string())
        }
    }

    /// The body of any other route could not be read.
    pub(crate) fn unread_body(error: &(dyn Error + 'static), text: String) -> Failure {
        let Some(interrupted) = InterruptedBody::behind(error) else {
            return Failure::bad_parameter(text);
        };
        let (code, title) = match interrupted {
            InterruptedBody::TooSlow => ("REQUEST_TIMEOUT", "Request timeout"),
            InterruptedBody::MadeRoom => ("UNAVAILABLE", "Service unavailable"),
        };
        let failure = Failure::new(interrupted.status(), code, title, interrupted.to_string());
        Failure { retry_after: interrupted.retry_after(), ..failure }
    }

    fn unavailable(detail: &str, retry_after: u32) -> Failure {
        let failure = Failure::new(503, "UNAVAILABLE", "Service unavailable", detail);
        Failure { retry_after: Some(retry_after), ..failure }
    }

    fn new(status: u16, code: &str, title: &str, detail: impl Into<String>) -> Failure {
        Failure { status, retry_after: None, body: Box::new(ErrorBody::new(status, code, title, detail)) }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        let failure = StoreFailure::of(&error);
        let detail = match failure {
            StoreFailure::Nul => {
                return Failure::bad_parameter(
                    "A text holds the character NUL (U+0000), which the service does not store",
                );
            }
            StoreFailure::Conflict => "Others were changing the same, and nothing was done: try again",
            StoreFailure::Outage => "The service cannot reach its database: try again in some seconds",
            StoreFailure::Other => "Try again later",
        };
        Failure::unavailable(detail, failure.retry_after())
    }
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Failure {
        match error {
            IdentityError::Gone => Failure::unauthorized(),
            IdentityError::Store(error) => error.into(),
            IdentityError::Key(_) => {
                tracing::error!(%error, "an identity request failed");
                Failure::unavailable("Try again later", RETRY_AFTER)
            }
        }
    }
}

impl From<ProjectError> for Failure {
    fn from(error: ProjectError) -> Failure {
        match error {
            ProjectError::Invalid(text) => Failure::bad_parameter(text),
            ProjectError::UnknownProject => Failure::not_found("There is no such project"),
            ProjectError::TooMany => {
                Failure::new(403, "FORBIDDEN", "Forbidden", "There are too many of them")
            }
            ProjectError::Store(error) => error.into(),
        }
    }
}
