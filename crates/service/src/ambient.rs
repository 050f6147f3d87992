//! The clock, ids and randomness of the service: the only place that reads them.
//!
//! Everything else is told the time, the id or the secret it shall use, so that it can be tested with fixed ones.
#![allow(clippy::disallowed_methods)] // this is the module that the lint points everybody to

use jiff::Timestamp;
use uuid::Uuid;

/// The time now.
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// An id that sorts by the time it was made: for what grows with tasks, so that an index on it grows at its end.
pub fn ordered_id() -> Uuid {
    Uuid::now_v7()
}

/// An id that says nothing.
pub fn random_id() -> Uuid {
    Uuid::new_v4()
}
