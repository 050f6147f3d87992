//! What every long-running process of Farcall does alike: signals, the two-stage stop, readiness, logging, limits.
//!
//! Nothing else may move in: what only one process does lives with that process.

pub mod logging;
pub mod open_files;
pub mod ready;
pub mod stop;
