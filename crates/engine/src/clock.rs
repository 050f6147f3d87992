//! Reads the clock. No other module of the engine does: the rest gets the time as an argument.
#![allow(clippy::disallowed_methods)] // the one module that may

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A clock that only goes forward, with the wall time at which it began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    began: Instant,
    began_wall: Duration,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { began: Instant::now(), began_wall: since_epoch() }
    }

    /// Time since the clock began.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// The wall time of a reading of [`Self::now`], in nanoseconds since 1970.
    pub(crate) fn wall_nanos(&self, reading: Duration) -> u64 {
        u64::try_from((self.began_wall + reading).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The wall clock, since 1970.
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
