//! The configuration that an engine writes for the nodes of a run, and that each node reads at its start.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wire::EndpointId;

use crate::config::{Accelerators, CpuAffinity, Workers};
use crate::link::keys::LinkKeys;
use crate::link::message;

/// The configuration of all nodes of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// Of the engine that wrote it.
    pub(crate) version: String,
    /// The run of that engine.
    #[serde(default)]
    pub(crate) run: String,
    /// The addresses at which the engine listens; the node tries all of them.
    pub(crate) engines: Vec<SocketAddr>,
    /// How long the node tries them.
    pub(crate) probe: Duration,
    pub(crate) debug: bool,
    pub(crate) keys: LinkKeys,
    pub(crate) heartbeat_period: Duration,
    pub(crate) heartbeat_threshold: Duration,
    /// Logs go to `<logs>/block-<n>/<uid>/`. Absent: to the node's own directory, which is removed with it.
    pub(crate) logs: Option<PathBuf>,
    pub(crate) workers: Workers,
    pub(crate) max_workers: Option<u32>,
    pub(crate) cores_per_worker: f64,
    pub(crate) mem_per_worker: Option<f64>,
    pub(crate) cpu_affinity: CpuAffinity,
    pub(crate) accelerators: Accelerators,
    pub(crate) python: Option<String>,
    /// The directory that holds the worker's Python. Absent: the node installs its own.
    pub(crate) worker_library: Option<PathBuf>,
    /// How long a worker may take to be ready.
    pub(crate) start_limit: Duration,
    pub(crate) worker: WorkerConfig,
}

/// The part of a configuration that every version has.
#[derive(Deserialize)]
struct AnyConfig {
    #[serde(default)]
    version: String,
}

/// What a worker needs to know; it reads this from its environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WorkerConfig {
    pub(crate) endpoint_id: EndpointId,
    /// A relative path is below the node's own directory.
    pub(crate) working_dir: PathBuf,
    pub(crate) run_in_sandbox: bool,
    pub(crate) allowed: Vec<String>,
    pub(crate) result_size_limit: u64,
    /// Whether functions find `PARSL_WORKER_RANK` and similar variables.
    pub(crate) variables: bool,
    /// The names of threads, when workers are threads. The node fills this in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) thread_name_prefix: Option<String>,
}

/// Why a node's configuration can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}: {error}")]
    Read { path: PathBuf, error: io::Error },
    #[error("{path} is not a node's configuration: {error}")]
    Shape { path: PathBuf, error: serde_json::Error },
    #[error("{0}")]
    Version(String),
}

impl Config {
    /// Reads the file that the engine wrote, or one that this process has inherited. That one is closed, so that no worker
    /// inherits it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let bytes = fs::read(path).map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
        let inherited = path.strip_prefix("/proc/self/fd").ok().and_then(Path::to_str);
        if let Some(number) = inherited.and_then(|number| number.parse::<RawFd>().ok()) {
            let _ = nix::unistd::close(number); // it is open: it has just been read
        }
        let shape = |error| ConfigError::Shape { path: path.to_owned(), error };
        check_version(serde_json::from_slice(&bytes).map_err(shape)?)?;
        serde_json::from_slice(&bytes).map_err(shape)
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

/// The program's file may be replaced while the endpoint runs: then its nodes have another version.
fn check_version(any: AnyConfig) -> Result<(), ConfigError> {
    message::describe_mismatch(message::VERSION, &any.version)
        .map_or(Ok(()), |text| Err(ConfigError::Version(text)))
}

#[cfg(test)]
impl Config {
    /// A configuration whose every limit is absent.
    pub(crate) fn for_tests() -> Self {
        Self {
            version: message::VERSION.to_owned(),
            run: "run".to_owned(),
            engines: vec![([127, 0, 0, 1], 1).into()],
            probe: Duration::from_secs(30),
            debug: false,
            keys: crate::link::keys::generate().unwrap().1,
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
