//! The ids that this program draws, and the time of day.
#![allow(clippy::disallowed_methods, reason = "the one place that draws ids and reads the clock")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

pub(crate) fn id() -> Uuid {
    Uuid::now_v7()
}

/// Since the beginning of 1970.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
