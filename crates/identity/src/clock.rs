//! The clock of the identity service: the only place that reads it. Everything else gets the time as a parameter.
#![allow(clippy::disallowed_methods)] // this is the module that the lint points everybody to

use jiff::Timestamp;

/// The time now.
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}
