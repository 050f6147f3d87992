//! What can go wrong between us and a service, by what the caller can do about it.

use thiserror::Error;

/// An answer of the service (or of the identity service) that is a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    /// The service's own name for the failure, such as `RESOURCE_LOCKED`.
    pub code: Option<String>,
    /// What it says about it, when the body could be read.
    pub message: Option<String>,
    /// The body as it came (cut at 4 KiB), for those who print it whole.
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

/// Why a request got no good answer.
#[derive(Debug, Error)]
pub enum Error {
    /// The service understood and said no; asking again changes nothing.
    #[error("the service refused: {0}")]
    Refused(Refusal),
    /// The identity service gave no token.
    #[error("the identity service refused: {0}")]
    Unauthenticated(Refusal),
    /// Nobody answered, or only with passing trouble, as often as we asked.
    #[error("the service at {url} could not be reached: {reason}")]
    Unreachable { url: String, reason: String },
    /// An answer that is no answer to what we asked.
    #[error("the service at {url} answered with what we can't read: {reason}")]
    Unreadable { url: String, reason: String },
    /// Nobody has logged in, or the login has run out.
    #[error("nobody is logged in")]
    NotLoggedIn,
    /// The token store can't be used.
    #[error(transparent)]
    Storage(#[from] crate::storage::StorageError),
    /// The HTTP client could not even be built.
    #[error("the HTTP client could not be built: {0}")]
    Unusable(String),
}
