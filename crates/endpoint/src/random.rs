//! Draws random ids. No other module does.
#![allow(clippy::disallowed_methods)] // the one place that may draw ids

use wire::RunId;

/// The id of a new run.
pub(crate) fn run_id() -> RunId {
    RunId::from_uuid(uuid::Uuid::new_v4())
}
