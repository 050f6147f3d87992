//! Ends tasks, tracks which endpoints are online, and deletes what has expired.
//!
//! The states of one task are in the store (`store::tasks::state`).

pub mod ending;
pub mod presence;
pub mod retention;
