//! Reads the clock. Every other module takes the time from here or as a parameter.
#![allow(clippy::disallowed_methods)] // the one place that may read the clock

use std::time::{Duration, Instant, SystemTime};

use jiff::{Timestamp, Zoned};

/// Time since 1970; zero on a clock that is set before it.
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// The monotonic clock.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The time with its offset from UTC, for people.
pub(crate) fn local_time() -> Zoned {
    Zoned::now()
}

/// The time in UTC.
pub(crate) fn utc_time() -> Zoned {
    Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC)
}
