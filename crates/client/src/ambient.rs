//! The clock and the randomness of this crate. Everything else is told.
#![allow(clippy::disallowed_methods)] // the one place that may read them

use std::time::Instant;

/// A moment on the clock that never goes back.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A number in `0.0..1.0`, to spread retries.
pub(crate) fn fraction() -> f64 {
    rand::random()
}
