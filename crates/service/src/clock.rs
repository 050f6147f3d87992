//! The clock of the service: the only place that reads it.
//!
//! Everything else gets the time as a parameter, so that tests can pass a fixed one.
#![allow(clippy::disallowed_methods)] // this is the module that the lint points everybody to

use jiff::Timestamp;

/// The time now.
pub fn now() -> Timestamp {
    Timestamp::now()
}
