//! The launcher: from a checked start command to a running user endpoint.

mod request;

pub use request::{LaunchFailure, LaunchReport, LaunchRequest, ManagerFiles, MappedIdentity};
