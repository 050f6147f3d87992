//! What a node reads at start: the 0600 file the engine wrote for this run.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wire::EndpointId;

use crate::config::{Accelerators, CpuAffinity};
use crate::link::keys::Side;
use crate::link::message;

/// All that the nodes of one run have in common.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// Of the engine that wrote it.
    pub(crate) version: String,
    /// Where the engine can be called; all are tried.
    pub(crate) engines: Vec<SocketAddr>,
    /// How long they are tried.
    pub(crate) probe: Duration,
    pub(crate) debug: bool,
    pub(crate) keys: Side,
    pub(crate) heartbeat_period: Duration,
    pub(crate) heartbeat_threshold: Duration,
    /// Logs go to `<logs>/block-<n>/<uid>/`; absent: to a directory of the node's own, which goes with it.
    pub(crate) logs: Option<PathBuf>,
    pub(crate) workers: Workers,
    pub(crate) max_workers: Option<u32>,
    pub(crate) cores_per_worker: f64,
    pub(crate) mem_per_worker: Option<f64>,
    pub(crate) cpu_affinity: CpuAffinity,
    pub(crate) accelerators: Accelerators,
    pub(crate) python: Option<String>,
    /// The directory that holds the worker's Python; absent: the node writes its own.
    pub(crate) worker_library: Option<PathBuf>,
    /// How long a worker may take to be ready.
    pub(crate) start_limit: Duration,
    pub(crate) worker: WorkerConfig,
}

/// As much of a configuration as is understood of any version.
#[derive(Deserialize)]
struct AnyConfig {
    #[serde(default)]
    version: String,
}

/// What a worker needs to know; it reads this from its environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WorkerConfig {
    pub(crate) endpoint_id: EndpointId,
    /// A relative one is the node's own.
    pub(crate) working_dir: PathBuf,
    pub(crate) run_in_sandbox: bool,
    pub(crate) allowed: Vec<String>,
    pub(crate) result_size_limit: u64,
    /// Whether functions find `PARSL_WORKER_RANK` and its kin.
    pub(crate) variables: bool,
    /// The node's to fill in: how its threads are called, when workers are threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) thread_name_prefix: Option<String>,
}

/// What the workers of a node are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Workers {
    /// Each a process, replaced when it has run so many tasks.
    Processes { max_tasks: Option<u32> },
    /// All of them threads of one process.
    Threads { name_prefix: String },
}

/// Holds the configuration where nodes see none of the endpoint's files.
pub const CONFIG_VARIABLE: &str = "FARCALL_NODE_CONFIG";

/// Why a node's configuration can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}: {error}")]
    Read { path: PathBuf, error: io::Error },
    #[error("{path} is not a node's configuration: {error}")]
    Shape { path: PathBuf, error: serde_json::Error },
    #[error("{CONFIG_VARIABLE} holds no node's configuration")]
    Environment,
    #[error("{0}")]
    Version(String),
}

impl Config {
    /// Reads the file the engine wrote.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let bytes = fs::read(path).map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
        let shape = |error| ConfigError::Shape { path: path.to_owned(), error };
        same_version(serde_json::from_slice(&bytes).map_err(shape)?)?;
        serde_json::from_slice(&bytes).map_err(shape)
    }

    /// Reads what the engine handed over in this process's environment.
    pub fn from_environment() -> Result<Self, ConfigError> {
        let text = std::env::var(CONFIG_VARIABLE).map_err(|_| ConfigError::Environment)?;
        same_version(serde_json::from_str(&text).map_err(|_| ConfigError::Environment)?)?;
        serde_json::from_str(&text).map_err(|_| ConfigError::Environment)
    }

    /// Whether `worker_debug` asks for more to be logged.
    pub fn debug(&self) -> bool {
        self.debug
    }

    pub(crate) fn to_text(&self) -> String {
        serde_json::to_string(self).expect("a struct of strings and numbers")
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

/// The file of a program may be replaced while its endpoint runs: then its nodes are of another version.
fn same_version(any: AnyConfig) -> Result<(), ConfigError> {
    message::mismatch(message::VERSION, &any.version).map_or(Ok(()), |text| Err(ConfigError::Version(text)))
}

#[cfg(test)]
impl Config {
    /// A configuration whose every limit is absent.
    pub(crate) fn for_tests() -> Self {
        Self {
            version: message::VERSION.to_owned(),
            engines: vec![([127, 0, 0, 1], 1).into()],
            probe: Duration::from_secs(30),
            debug: false,
            keys: crate::link::keys::make().unwrap().1,
            heartbeat_period: Duration::from_secs(30),
            heartbeat_threshold: Duration::from_secs(120),
            logs: None,
            workers: Workers::Processes { max_tasks: None },
            max_workers: None,
            cores_per_worker: 1.0,
            mem_per_worker: None,
            cpu_affinity: CpuAffinity::None,
            accelerators: Accelerators::default(),
            python: None,
            worker_library: None,
            start_limit: Duration::from_secs(600),
            worker: WorkerConfig {
                endpoint_id: EndpointId::from_uuid(uuid::Uuid::nil()),
                working_dir: PathBuf::from("/"),
                run_in_sandbox: false,
                allowed: Vec::new(),
                result_size_limit: 10 << 20,
                variables: true,
                thread_name_prefix: None,
            },
        }
    }
}
