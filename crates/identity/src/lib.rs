//! Identities and their tokens: people, clients, sign-in, and the part of Globus Auth that clients call.
//!
//! | module | knows |
//! |---|---|
//! | [`people`], [`groups`] | identities, sets of linked identities, groups |
//! | [`password`] | hashes and checks passwords, a few at a time |
//! | [`applications`] | applications: with a secret, or native |
//! | [`tokens`], [`scope`] | access tokens and their scopes |
//! | [`id_token`], [`signing_keys`] | id tokens, and the keys that sign them |
//! | [`grants`] | OAuth grants, one file each |
//! | [`codes`], [`refresh_tokens`] | authorization codes and refresh tokens |
//! | [`sessions`], [`sign_in_requirements`] | browser sessions, and what applications and policies require of them |
//! | [`web`], [`login_throttle`] | the pages in a browser, and the limit on password guesses |
//! | [`providers`] | sign-in through the site's own identity providers |
//! | [`projects`] | projects and authentication policies |
//! | [`routes`] | HTTP, one file per route |
//! | [`rates`] | rate limits |
//! | [`store_failure`] | what a caller is told of an error of the store |
//! | [`end_reason`] | why a token or credential is no longer valid |
//! | [`cache`] | caches rows of the store for some seconds |
//! | [`fair_shares`], [`rates`] | how much of a room one holder may take, and how often it may ask |
//! | [`audit`] | the audit log |
//!
//! Tokens are opaque and random; the store holds their hashes. A token is checked against a cache that is read again from
//! the store after a few seconds; a token that this process ends leaves the cache at once. Id tokens are signed; they are
//! issued and never accepted.
//!
//! This module may never log a secret, and knows nothing of tasks.

pub mod applications;
pub mod audit;
pub mod cache;
mod clock;
pub mod codes;
pub mod end_reason;
pub mod failure;
pub mod fair_shares;
pub mod form;
pub mod grants;
pub mod groups;
pub mod http;
pub mod id_token;
pub mod login_throttle;
pub mod password;
pub mod people;
pub mod projects;
pub mod providers;
mod random;
pub mod rates;
pub mod refresh_tokens;
pub mod routes;
pub mod scope;
pub mod sessions;
pub mod sign_in_requirements;
pub mod signing_keys;
pub mod store_failure;
pub mod tokens;
pub mod web;

use std::path::PathBuf;
use std::sync::Arc;

use wire::{ClientId, IdentityId};

use applications::Application;
use cache::Cache;
use end_reason::EndReasons;
use rates::RateLimiter;
use signing_keys::{KeyError, Keys};
use store::secret::Hash;
use store::{Profile, Store, StoreError, Token};

/// The rate limit on token requests of one identity, each of which is a write: 2,000 programs may start at a time.
const TOKENS_EACH_SECOND: u32 = 20;
const TOKENS_AT_ONCE: u32 = 2_000;

/// The identity part of the service. Clones share it.
#[derive(Clone, Debug)]
pub struct Identity {
    store: Store,
    passwords: password::Hasher,
    keys: Keys,
    tokens: Cache<Hash, Arc<Token>>,
    applications: Cache<ClientId, Arc<Application>>,
    sets: Cache<IdentityId, Arc<[Profile]>>,
    reasons: EndReasons,
    /// The rate of token requests, by identity.
    tokens_asked: RateLimiter<IdentityId>,
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The token's identity was removed.
    #[error("the identity is not known any more")]
    Gone,
}

impl Identity {
    /// `keys` is the directory of the signing keys.
    pub fn new(store: Store, keys: PathBuf) -> Identity {
        Identity {
            reasons: EndReasons::new(store.clone()),
            tokens_asked: RateLimiter::new(TOKENS_EACH_SECOND, TOKENS_AT_ONCE),
            store,
            passwords: password::Hasher::default(),
            keys: Keys::new(keys),
            tokens: Cache::default(),
            applications: Cache::default(),
            sets: Cache::default(),
        }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The keys that sign id tokens.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }
}
