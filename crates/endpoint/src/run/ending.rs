//! How a run ends, and what its owner is told.

use crate::directory::EndpointDir;
use crate::exit::{CommandResult, Failure, status};

/// Why a run ends, for whoever sees the endpoint at the service.
pub(super) const IDLE: &str = "It was idle for as long as its configuration allows";
pub(super) const STOPPED: &str = "It was stopped (by a signal: its manager's, or that of `stop`)";
pub(super) const FAILED: &str = "It could not go on. Its log says why";
pub(super) const ORPHANED: &str = "Its manager ended";
pub(super) const NO_BLOCK_WORKS: &str = "It can't run tasks: none of its blocks works. Its log says why";

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RunEnd {
    Stopped,
    /// No block works. `worked`: one did before.
    EngineFailed {
        text: String,
        worked: bool,
    },
    /// Audit records can't be written.
    Unrecorded(String),
    Superseded,
}

impl RunEnd {
    pub(super) fn outcome(self, endpoint: &EndpointDir) -> CommandResult {
        match self {
            Self::Stopped => Ok(()),
            Self::EngineFailed { text, worked } => Err(Failure::new(
                // If no block ever worked, the configuration must change; otherwise a restart may help.
                if worked { status::SOFTWARE } else { status::CONFIG },
                format!(
                    "Error: endpoint '{}' can't run tasks: none of its blocks works.\n{}\nThe log is {}",
                    endpoint.name(),
                    text.trim_end(),
                    endpoint.log().display()
                ),
            )),
            Self::Unrecorded(why) => Err(Failure::new(
                status::CANTCREAT,
                format!("Error: Unable to write audit log; endpoint may not continue: {why}"),
            )),
            Self::Superseded => Err(Failure::new(
                status::ALREADY_ACTIVE,
                format!(
                    "Endpoint '{}' is run by another process by now: this one stood still for so long that it was \
                     superseded",
                    endpoint.name()
                ),
            )),
        }
    }
}
