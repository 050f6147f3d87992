//! The clock of the service: the only place that reads it.
//!
//! Everything else is told the time, so that it can be tested with a fixed one.
#![allow(clippy::disallowed_methods)] // this is the module that the lint points everybody to

use jiff::Timestamp;

/// The time now.
pub fn now() -> Timestamp {
    Timestamp::now()
}
