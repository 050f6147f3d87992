//! Finds out why a token or credential is no longer valid. Only a caller that presents the secret gets the reason; to all
//! others an ended one looks like an unknown one.

use std::fmt;
use std::net::IpAddr;

use jiff::Timestamp;
use wire::ClientId;

use super::Identity;
use crate::http::arrival::network;
use crate::rates::RateLimiter;
use store::secret::Hash;
use store::{Store, StoreError};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The account, or the application, of this name is disabled.
    Disabled(String),
    Removed,
    /// An administrator ended the login; the account may be used again.
    LoginEnded,
    Expired(Timestamp),
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EndReason::Disabled(name) => {
                write!(f, "The account {name} is disabled: ask who administers this service")
            }
            EndReason::Removed => f.write_str("The account was removed: ask who administers this service"),
            EndReason::LoginEnded => {
                f.write_str("This login was ended by who administers the service: log in again")
            }
            EndReason::Expired(at) => write!(f, "The login expired at {at:.0}: log in again"),
        }
    }
}

/// The rate limit on looking up invalid secrets for one network. Beyond it, no reason is given.
const EACH_SECOND: u32 = 10;
const AT_ONCE: u32 = 100;

/// Finds out why secrets are no longer valid. Clones share the rate limit.
#[derive(Clone, Debug)]
pub struct EndReasons {
    store: Store,
    asked: RateLimiter<IpAddr>,
}

impl EndReasons {
    pub fn new(store: Store) -> EndReasons {
        EndReasons { store, asked: RateLimiter::new(EACH_SECOND, AT_ONCE) }
    }

    /// Why `secret`, of any kind, is no longer valid, if that is known. Anybody can send random secrets, each of which costs
    /// three look-ups: beyond the rate limit for the network of `peer`, nothing is looked up.
    pub async fn why(
        &self,
        secret: &str,
        peer: IpAddr,
        now: Timestamp,
    ) -> Result<Option<EndReason>, StoreError> {
        match self.asked.take(network(peer), now) {
            Ok(()) => why(&self.store, secret, now).await,
            Err(_) => Ok(None),
        }
    }
}

async fn why(store: &Store, secret: &str, now: Timestamp) -> Result<Option<EndReason>, StoreError> {
    let hash = Hash::of(secret);
    if let Some(owner) = store.owner_of_ended_secret(hash).await? {
        if let Some(profile) = store.profile(owner).await? {
            let ended =
                if profile.disabled { EndReason::Disabled(profile.username) } else { EndReason::LoginEnded };
            return Ok(Some(ended));
        }
        return Ok(Some(match store.native_app(ClientId::from_uuid(*owner.as_uuid())).await? {
            Some(app) if app.disabled => EndReason::Disabled(app.name),
            Some(_) => EndReason::LoginEnded,
            None => EndReason::Removed,
        }));
    }
    let token = store.token(hash).await?.map(|token| token.expires);
    let ends = match token {
        Some(ends) => Some(ends),
        None => store.refresh_token(hash).await?.map(|token| token.expires),
    };
    Ok(ends.filter(|ends| *ends <= now).map(EndReason::Expired))
}

impl Identity {
    /// See [`EndReasons::why`].
    pub async fn end_reason(
        &self,
        secret: &str,
        peer: IpAddr,
        now: Timestamp,
    ) -> Result<Option<EndReason>, StoreError> {
        self.reasons.why(secret, peer, now).await
    }
}
