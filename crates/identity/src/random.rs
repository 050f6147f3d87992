//! Ids and secrets that the identity service draws: the only place that does.
#![allow(clippy::disallowed_methods)] // this is the module that the lint points everybody to

use rand::RngExt;
use uuid::Uuid;

/// An id that reveals nothing, not even when it was made.
pub(crate) fn random_id() -> Uuid {
    Uuid::new_v4()
}

/// 32 random bytes: enough for a secret that nobody can guess.
pub(crate) fn random_bytes() -> [u8; 32] {
    rand::rng().random()
}
