//! Draws the engine's random ids: those of nodes and of runs.
#![allow(clippy::disallowed_methods)] // the one module that may make ids

use uuid::Uuid;

/// The id of a node: twelve hexadecimal digits.
pub(crate) fn node_uid() -> String {
    let mut name = Uuid::new_v4().simple().to_string();
    name.truncate(12);
    name
}

/// The id of one run of an engine.
pub(crate) fn run_id() -> String {
    Uuid::new_v4().simple().to_string()
}
