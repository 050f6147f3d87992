//! What every long-running process of Farcall needs: signals, the two-stage stop, readiness, logging, limits.
//!
//! Nothing else belongs here: code that only one program needs is in that program's crate.

pub mod logging;
pub mod open_files;
pub mod ready;
pub mod stop;
