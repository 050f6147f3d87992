//! Failures of the identity service: OAuth's form on the token routes, a list of errors on the others.

use serde::{Deserialize, Serialize};

use crate::rest::error::AuthorizationParameters;

/// The body of a failure. OAuth routes need `error`, the others `errors`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Problem>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_parameters: Option<AuthorizationParameters>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The HTTP status, as a string.
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub code: String,
    pub title: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// OAuth's names for the failures of a token request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OAuthError {
    InvalidRequest,
    InvalidClient,
    InvalidGrant,
    InvalidScope,
    UnauthorizedClient,
    UnsupportedGrantType,
    /// Too many requests.
    TemporarilyUnavailable,
}

impl OAuthError {
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::InvalidGrant => "invalid_grant",
            Self::InvalidScope => "invalid_scope",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
        }
    }

    pub const fn http_status(self) -> u16 {
        match self {
            Self::InvalidClient => 401,
            Self::TemporarilyUnavailable => 429,
            _ => 400,
        }
    }
}

impl ErrorBody {
    /// A failure on a token route.
    pub fn oauth(error: OAuthError, description: impl Into<String>) -> Self {
        Self {
            error: Some(error.name().to_owned()),
            error_description: Some(description.into()),
            ..Self::default()
        }
    }

    /// A failure on any other route.
    pub fn new(http_status: u16, code: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            errors: vec![Problem {
                status: http_status.to_string(),
                id: None,
                code: code.to_owned(),
                title: title.to_owned(),
                detail: Some(detail.into()),
            }],
            ..Self::default()
        }
    }
}
