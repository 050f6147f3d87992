//! Errors of requests to a service. One variant for each thing that the caller can do about it.

use thiserror::Error;

/// A refusal by the service or the identity service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    /// The service's own name for the failure, such as `RESOURCE_LOCKED`.
    pub code: Option<String>,
    /// The service's message, when the body could be read.
    pub message: Option<String>,
    /// The body as it came, cut at 4,096 characters.
    pub text: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HTTP status: {}", self.status)?;
        if let Some(code) = &self.code {
            write!(f, ", code: {code}")?;
        }
        match &self.message {
            Some(message) => write!(f, ", message: {message}"),
            None => write!(f, ", body: {}", self.text),
        }
    }
}

/// Why a request failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The service refused the request; a retry changes nothing.
    #[error("the service refused: {0}")]
    Refused(Refusal),
    /// The identity service issued no token.
    #[error("the identity service refused: {0}")]
    Unauthenticated(Refusal),
    /// No answer, or only temporary errors, in all attempts.
    #[error("the service at {url} could not be reached: {reason}")]
    Unreachable { url: String, reason: String },
    /// The answer can't be decoded.
    #[error("the service at {url} sent an answer that can't be decoded: {reason}")]
    Unreadable { url: String, reason: String },
    /// Nobody has logged in, or the login has expired.
    #[error("nobody is logged in")]
    NotLoggedIn,
    /// The token store can't be used.
    #[error(transparent)]
    TokenStore(#[from] crate::token_store::TokenStoreError),
    /// The HTTP client could not be built.
    #[error("the HTTP client could not be built: {0}")]
    Unusable(String),
}
