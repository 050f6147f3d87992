//! The time of day.
#![allow(clippy::disallowed_methods, reason = "the one place that reads the clock")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Since the beginning of 1970.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
