//! The clock, the ids and the environment of this crate. Everything else is told.
#![allow(clippy::disallowed_methods)] // the one place that may read them

use std::time::{Duration, Instant, SystemTime};

use jiff::Zoned;
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
