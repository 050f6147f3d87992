//! The clock and the randomness of this crate; everything else is told.
#![allow(clippy::disallowed_methods, reason = "the one module that may ask them")]

use std::hash::{BuildHasher, Hasher, RandomState};

use tokio::time::Instant;

/// A clock that only rises.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Sixty-four bits from the system's randomness.
pub(crate) fn secret() -> u64 {
    RandomState::new().build_hasher().finish()
}
