//! What becomes of tasks besides being carried: whether their endpoints are there, and how long what is left of them is kept.
//!
//! The states of one task are in the store (`store::tasks::state`).

pub mod ending;
pub mod presence;
pub mod retention;
