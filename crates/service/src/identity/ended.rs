//! Why a secret opens nothing any more. Who still has it has shown who they are and may be told; for everybody else what
//! has ended looks like what never was.

use std::fmt;

use jiff::Timestamp;
use wire::ClientId;

use super::Identity;
use crate::secret::Hash;
use crate::store::{Store, StoreError};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The account, or the application, of this name is disabled.
    Disabled(String),
    Removed,
    /// Somebody was shut out when it ended, and is no more.
    Before,
    Expired(Timestamp),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Disabled(name) => {
                write!(f, "The account {name} is disabled: ask who administers this service")
            }
            Ended::Removed => f.write_str("The account was removed: ask who administers this service"),
            Ended::Before => f.write_str("This login was ended by who administers the service: log in again"),
            Ended::Expired(at) => write!(f, "The login expired at {at:.0}: log in again"),
        }
    }
}

/// Why `secret`, of whatever kind, is not good any more, as far as it is known.
pub async fn why(store: &Store, secret: &str, now: Timestamp) -> Result<Option<Ended>, StoreError> {
    let hash = Hash::of(secret);
    if let Some(shut_out) = store.shut_out_with(hash).await? {
        if let Some(profile) = store.profile(shut_out).await? {
            let ended = if profile.disabled { Ended::Disabled(profile.username) } else { Ended::Before };
            return Ok(Some(ended));
        }
        return Ok(Some(match store.native_app(ClientId::from_uuid(*shut_out.as_uuid())).await? {
            Some(app) if app.disabled => Ended::Disabled(app.name),
            Some(_) => Ended::Before,
            None => Ended::Removed,
        }));
    }
    let token = store.token(hash).await?.map(|token| token.expires);
    let ends = match token {
        Some(ends) => Some(ends),
        None => store.refresh_token(hash).await?.map(|token| token.expires),
    };
    Ok(ends.filter(|ends| *ends <= now).map(Ended::Expired))
}

impl Identity {
    /// See [`why`].
    pub async fn why_ended(&self, secret: &str, now: Timestamp) -> Result<Option<Ended>, StoreError> {
        why(&self.store, secret, now).await
    }
}
