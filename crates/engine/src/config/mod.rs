//! The configuration of an engine: the user's options, and what the endpoint adds at start.
//!
//! The endpoint reads the file and its templates; this module gets a tree of plain values.

pub(crate) mod address;
#[cfg_attr(not(test), expect(dead_code, reason = "no provider submits to a batch scheduler yet"))]
pub(crate) mod batch;
mod check;
mod devices;
mod error;
mod kind;
mod options;
mod provider;
mod read;
mod strategy;

use std::path::PathBuf;
use std::time::Duration;

use wire::EndpointId;

pub use address::{Address, AddressFinder};
pub use devices::{AcceleratorName, Accelerators, CpuAffinity};
pub use error::InvalidOptions;
pub use kind::EngineKind;
pub(crate) use kind::Workers;
pub use options::{ContainerType, Options};
pub use provider::{BlockOptions, LocalOptions, ProviderKind, ProviderOptions};

/// Everything an engine needs to start.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    pub endpoint: EndpointId,
    /// The endpoint's directory, absolute: scripts, logs and the key file lie below it.
    pub run_dir: PathBuf,
    /// The program a block runs; the engine appends `--block N --config FILE`.
    pub node_command: Vec<String>,
    /// The soft limit of open files that users had, if the endpoint has raised its own: blocks get this one.
    pub open_files: Option<u64>,
    /// Whether [`crate::Event::Placed`] says which block gets a task.
    pub reports_blocks: bool,
    pub options: Options,
}

impl EngineConfig {
    /// Where the engine's own files lie: `<run_dir>/<executor label>`.
    pub(crate) fn engine_dir(&self) -> PathBuf {
        self.run_dir.join(self.executor_label())
    }

    /// Where job scripts and their outputs lie.
    pub(crate) fn scripts(&self) -> PathBuf {
        self.run_dir.join("submit_scripts")
    }

    /// The label by which jobs, directories and texts name this engine.
    pub(crate) fn executor_label(&self) -> String {
        format!("{}{}", self.options.label(), self.options.kind.traits().executor_suffix)
    }

    pub(crate) fn heartbeat_period(&self) -> Duration {
        Duration::from_secs(self.options.heartbeat_period)
    }

    pub(crate) fn heartbeat_threshold(&self) -> Duration {
        Duration::from_secs(self.options.heartbeat_threshold)
    }
}
