//! Why a node ends early.

use std::io;
use std::path::PathBuf;

use super::resources::NoSlots;

/// Why a node ended early. It goes to the block's error file, and from there to the user.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("the run's keys can't be used: {0}")]
    Keys(String),
    #[error("cannot reach the endpoint: {0}")]
    Unreachable(String),
    #[error("protocol error on the link: {0}")]
    Protocol(String),
    #[error("no Python interpreter: {0} is not on the PATH of this node")]
    NoPython(String),
    #[error("cannot start the worker with {python}: {error}")]
    CannotStart { python: PathBuf, error: io::Error },
    #[error("workers do not start: {0}")]
    NoWorkerStarts(String),
    #[error("the endpoint refuses this node: {0}")]
    Refused(String),
    #[error("cannot write logs in {path}: {error}")]
    Logs { path: PathBuf, error: io::Error },
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    #[error(transparent)]
    NoSlots(#[from] NoSlots),
}
