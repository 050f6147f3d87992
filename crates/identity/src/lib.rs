//! Who asks: people and programs, their tokens, and the part of Globus Auth that clients call.
//!
//! | module | knows |
//! |---|---|
//! | [`people`], [`groups`] | identities, their sets, who is in which group |
//! | [`password`] | passwords, checked a few at a time |
//! | [`applications`] | programs: with a secret, or native |
//! | [`tokens`], [`scope`] | access tokens and what they reach |
//! | [`id_token`], [`signing_keys`] | signed statements of who logged in, and the keys |
//! | [`grants`] | the ways to a token, one file each |
//! | [`codes`], [`refresh_tokens`] | what leads to tokens: codes, once; refresh tokens, in turns |
//! | [`sessions`], [`sign_in_requirements`] | who signed in where, when and how; whether that will do |
//! | [`web`], [`login_throttle`] | the pages of a browser; how often passwords may be guessed |
//! | [`providers`] | sign-in through the site's own identity providers |
//! | [`projects`] | projects and authentication policies |
//! | [`routes`] | HTTP, one file per route |
//! | [`rates`] | how often somebody may ask |
//! | [`end_reason`] | why something opens nothing any more |
//! | [`cache`] | what was read from the store a moment ago |
//! | [`fair_shares`], [`rates`] | how much of a room one holder may take, and how often it may ask |
//! | [`audit`] | what is written down of all that |
//!
//! Tokens are opaque and random; the store holds their hashes. Checking one costs a look-up in memory, which is read
//! again from the store after a few seconds; what ends here leaves it at once. An id token is signed, and only ever
//! handed out.
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
pub mod tokens;
pub mod web;

use std::path::PathBuf;
use std::sync::Arc;

use wire::{ClientId, IdentityId};

use applications::Application;
use cache::Memory;
use end_reason::Reasons;
use rates::Rates;
use signing_keys::{KeyError, Keys};
use store::secret::Hash;
use store::{Profile, Store, StoreError, Token};

/// Each request for tokens is a write. A thousand programs of one identity may start at a time, twice.
const TOKENS_EACH_SECOND: u32 = 20;
const TOKENS_AT_ONCE: u32 = 2_000;

/// The identity part of the service. Clones share it.
#[derive(Clone, Debug)]
pub struct Identity {
    store: Store,
    passwords: password::Hasher,
    keys: Keys,
    tokens: Memory<Hash, Arc<Token>>,
    applications: Memory<ClientId, Arc<Application>>,
    sets: Memory<IdentityId, Arc<[Profile]>>,
    reasons: Reasons,
    /// Tokens that one identity asks for.
    tokens_asked: Rates<IdentityId>,
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A token stands for somebody who is gone.
    #[error("the identity is not known any more")]
    Gone,
}

impl Identity {
    /// `keys` is the directory of the signing keys.
    pub fn new(store: Store, keys: PathBuf) -> Identity {
        Identity {
            reasons: Reasons::new(store.clone()),
            tokens_asked: Rates::new(TOKENS_EACH_SECOND, TOKENS_AT_ONCE),
            store,
            passwords: password::Hasher::default(),
            keys: Keys::new(keys),
            tokens: Memory::default(),
            applications: Memory::default(),
            sets: Memory::default(),
        }
    }

    /// What is on disk.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The keys that sign id tokens.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }
}
