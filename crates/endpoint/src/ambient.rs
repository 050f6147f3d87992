//! The clock, the ids and the environment of this crate. Everything else is told.
#![allow(clippy::disallowed_methods)] // the one place that may read them

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use jiff::{Timestamp, Zoned};
use wire::RunId;

/// Time since 1970; zero on a clock that is set before it.
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// A moment on the clock that never goes back.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The time with its offset from UTC, for people.
pub(crate) fn local_time() -> Zoned {
    Zoned::now()
}

/// The id of a new run.
pub(crate) fn run_id() -> RunId {
    RunId::from_uuid(uuid::Uuid::new_v4())
}

/// A variable of the environment; one that isn't text counts as absent.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Every variable of the environment that is text.
pub(crate) fn variables() -> Vec<(String, String)> {
    let text =
        |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    std::env::vars_os().filter_map(text).collect()
}

/// The words of the command line.
pub(crate) fn words() -> Vec<OsString> {
    std::env::args_os().collect()
}

/// The name this program was called by.
pub(crate) fn called_as() -> Option<OsString> {
    std::env::args_os().next()
}

/// The path of this program.
pub(crate) fn own_path() -> std::io::Result<PathBuf> {
    std::env::current_exe()
}

/// The time in UTC.
pub(crate) fn utc_time() -> Zoned {
    Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC)
}
