//! The ids that the service makes: the only place that does.
//!
//! Everything else is told the id that it shall use, so that it can be tested with fixed ones.
#![allow(clippy::disallowed_methods)] // this is the module that the lint points everybody to

use uuid::Uuid;

/// An id that sorts by the time it was made: for what grows with tasks, so that an index on it grows at its end.
pub fn ordered_id() -> Uuid {
    Uuid::now_v7()
}

/// An id that says nothing.
pub fn random_id() -> Uuid {
    Uuid::new_v4()
}
