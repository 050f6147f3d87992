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

/// Time since the machine was started: no correction of the clock moves it, and all processes see the same.
pub(crate) fn since_boot() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one `timespec` to the pointer, which points to one.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
