//! What a node reads at start: the 0600 file the engine wrote for this run.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wire::EndpointId;

use crate::config::CpuAffinity;
use crate::link::keys::Side;

/// All that the nodes of one run have in common.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    pub(crate) engine: SocketAddr,
    pub(crate) keys: Side,
    pub(crate) heartbeat_period: Duration,
    pub(crate) heartbeat_threshold: Duration,
    /// Logs go to `<logs>/block-<n>/<uid>/`.
    pub(crate) logs: PathBuf,
    pub(crate) max_workers: Option<u32>,
    pub(crate) cores_per_worker: f64,
    pub(crate) mem_per_worker: Option<f64>,
    pub(crate) cpu_affinity: CpuAffinity,
    pub(crate) accelerators: Vec<String>,
    pub(crate) python: Option<String>,
    /// The directory that holds the worker's Python file.
    pub(crate) worker_library: PathBuf,
    pub(crate) worker: WorkerConfig,
}

/// What a worker needs to know; it reads this from its environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WorkerConfig {
    pub(crate) endpoint_id: EndpointId,
    pub(crate) working_dir: PathBuf,
    pub(crate) run_in_sandbox: bool,
    pub(crate) allowed: Vec<String>,
    pub(crate) result_size_limit: u64,
}

/// Why a node's configuration can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}: {error}")]
    Read { path: PathBuf, error: io::Error },
    #[error("{path} is not a node's configuration: {error}")]
    Shape { path: PathBuf, error: serde_json::Error },
}

impl Config {
    /// Reads the file the engine wrote.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let bytes = fs::read(path).map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
        serde_json::from_slice(&bytes).map_err(|error| ConfigError::Shape { path: path.to_owned(), error })
    }

    /// Writes the file, readable by its owner only from its first byte on.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(&serde_json::to_vec(self)?)
    }
}

#[cfg(test)]
impl Config {
    /// A configuration whose every limit is absent.
    pub(crate) fn for_tests() -> Self {
        Self {
            engine: ([127, 0, 0, 1], 1).into(),
            keys: crate::link::keys::make().unwrap().1,
            heartbeat_period: Duration::from_secs(30),
            heartbeat_threshold: Duration::from_secs(120),
            logs: PathBuf::new(),
            max_workers: None,
            cores_per_worker: 1.0,
            mem_per_worker: None,
            cpu_affinity: CpuAffinity::None,
            accelerators: Vec::new(),
            python: None,
            worker_library: PathBuf::new(),
            worker: WorkerConfig {
                endpoint_id: EndpointId::from_uuid(uuid::Uuid::nil()),
                working_dir: PathBuf::from("/"),
                run_in_sandbox: false,
                allowed: Vec::new(),
                result_size_limit: 10 << 20,
            },
        }
    }
}
