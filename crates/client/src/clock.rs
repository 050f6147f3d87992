//! Reads the clock. Every other module takes the time from here.
#![allow(clippy::disallowed_methods)] // the one place that may read the clock

use std::time::{Instant, SystemTime};

/// The monotonic clock.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Seconds since 1970; zero on a clock that is set before it.
pub(crate) fn since_epoch() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
