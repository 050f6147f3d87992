//! The clock and the randomness of this crate. Everything else is told.
#![allow(clippy::disallowed_methods)] // the one place that may read them

use std::time::{Instant, SystemTime};

/// A moment on the clock that never goes back.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A number in `0.0..1.0`, to spread retries.
pub(crate) fn fraction() -> f64 {
    rand::random()
}

/// Seconds since 1970; zero on a clock that is set before it.
pub(crate) fn since_epoch() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Bytes nobody can guess.
pub(crate) fn secret() -> [u8; 32] {
    rand::random()
}
