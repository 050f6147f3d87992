//! The randomness of this crate.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Sixty-four bits from the system's randomness.
pub(crate) fn secret() -> u64 {
    RandomState::new().build_hasher().finish()
}
