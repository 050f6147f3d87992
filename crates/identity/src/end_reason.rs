//! Why a secret opens nothing any more. Who still has it has shown who they are and may be told; for everybody else what
//! has ended looks like what never was.

use std::fmt;
use std::net::IpAddr;

use jiff::Timestamp;
use wire::ClientId;

use super::Identity;
use crate::http::arrival::network;
use crate::rates::Rates;
use store::secret::Hash;
use store::{Store, StoreError};

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

/// So many secrets that open nothing are looked up for one address. Beyond that nobody is told why.
const EACH_SECOND: u32 = 10;
const AT_ONCE: u32 = 100;

/// Finds out why secrets open nothing any more. Clones share what addresses have asked.
#[derive(Clone, Debug)]
pub struct Reasons {
    store: Store,
    asked: Rates<IpAddr>,
}

impl Reasons {
    pub fn new(store: Store) -> Reasons {
        Reasons { store, asked: Rates::new(EACH_SECOND, AT_ONCE) }
    }

    /// Why `secret`, of whatever kind, is not good any more, as far as it is known. Anybody can come with one that never
    /// was, which takes three look-ups: whoever does so often, from `peer`, is told nothing for no look-up.
    pub async fn why(&self, secret: &str, peer: IpAddr, now: Timestamp) -> Result<Option<Ended>, StoreError> {
        match self.asked.take(network(peer), now) {
            Ok(()) => why(&self.store, secret, now).await,
            Err(_) => Ok(None),
        }
    }
}

async fn why(store: &Store, secret: &str, now: Timestamp) -> Result<Option<Ended>, StoreError> {
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
    /// See [`Reasons::why`].
    pub async fn why_ended(
        &self,
        secret: &str,
        peer: IpAddr,
        now: Timestamp,
    ) -> Result<Option<Ended>, StoreError> {
        self.reasons.why(secret, peer, now).await
    }
}
