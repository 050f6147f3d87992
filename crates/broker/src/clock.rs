//! The clock of this crate. Everything else gets the time as a parameter.

use tokio::time::Instant;

/// A time that never goes back.
pub(crate) fn now() -> Instant {
    Instant::now()
}
