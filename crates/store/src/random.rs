//! Ids and secrets that the store draws: the only place that does. Commands get the ids of their rows as parameters.
#![allow(clippy::disallowed_methods)] // this is the module that the lint points everybody to

use rand::RngExt;
use uuid::Uuid;

/// An id that sorts by the time it was made.
pub(crate) fn ordered_id() -> Uuid {
    Uuid::now_v7()
}

/// 32 random bytes: enough for a secret that nobody can guess.
pub(crate) fn random_bytes() -> [u8; 32] {
    rand::rng().random()
}
