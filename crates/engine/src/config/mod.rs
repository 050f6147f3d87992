//! The options users configure, by the names they know, and what the owner adds to them at start.
//!
//! Reading a file, its quirks and its templates is the owner's business; here arrives a tree of plain values.
//! An option without a meaning on this engine is still accepted when the contract lists it: a configuration that
//! worked before must work here. [`Options::without_meaning`] names those that were set, with the reason.

pub(crate) mod address;
mod devices;
mod kind;
pub(crate) mod strategy;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use wire::EndpointId;

pub use address::{Address, Finder};
pub use devices::{AcceleratorName, Accelerators, CpuAffinity};
pub use kind::EngineKind;

use crate::launcher::Launcher;
use crate::provider::ProviderOptions;

/// What a user writes under `engine:`. The fields are those of a GlobusComputeEngine; a pool sets those it shares.
///
/// Null-valued keys count as absent: whoever reads the file drops them before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    #[serde(skip)]
    pub kind: EngineKind,
    /// The endpoint has its id from its directory; accepted.
    pub endpoint_id: Option<Value>,
    pub label: Option<String>,
    pub provider: ProviderOptions,

    pub max_retries_on_system_failure: u32,
    pub working_dir: PathBuf,
    pub run_in_sandbox: bool,
    pub allowed_serializers: Vec<String>,
    /// In characters of the serialized result. Ours; the original knows only its default.
    pub result_size_limit: u64,
    /// The interpreter that runs the workers, looked up on the node's PATH after `worker_init`. Ours; absent means
    /// the first `python3`, else `python`.
    pub python: Option<String>,
    /// How long a worker may take to be ready, in seconds. Ours; what the original waits for has no end.
    pub worker_start_timeout: u64,

    pub max_workers_per_node: Option<u32>,
    pub cores_per_worker: f64,
    /// In GB.
    pub mem_per_worker: Option<f64>,
    pub cpu_affinity: CpuAffinity,
    pub available_accelerators: Accelerators,
    pub prefetch_capacity: u32,

    /// The address the engine listens on and nodes call. Absent: the loopback address.
    pub address: Option<Address>,
    /// Whether nodes see the endpoint's files. When they don't, they are handed this run's keys in their environment.
    /// Ours.
    pub shared_file_system: bool,
    pub worker_port: Option<u16>,
    /// A port of this half-open range is taken when `worker_port` is absent; absent: any free port.
    pub worker_port_range: Option<(u16, u16)>,
    /// In seconds.
    pub address_probe_timeout: Option<u64>,
    /// In seconds.
    pub heartbeat_period: u64,
    /// In seconds.
    pub heartbeat_threshold: u64,
    /// The link is always encrypted; `false` is accepted.
    pub encrypted: bool,

    pub worker_debug: bool,
    pub worker_logdir_root: Option<PathBuf>,
    pub block_error_handler: bool,

    pub strategy: Option<Value>,
    pub job_status_kwargs: serde_json::Map<String, Value>,
    /// In seconds.
    pub drain_period: Option<u64>,
    pub poll_period: Option<u64>,
    pub loopback_address: Option<String>,
    pub interchange_port_range: Option<(u16, u16)>,
    pub launch_cmd: Option<String>,
    pub interchange_launch_cmd: Option<Value>,
    pub storage_access: Option<Value>,
    pub manager_selector: Option<Value>,
    pub container_type: Option<Containers>,
    pub container_uri: Option<String>,
    pub container_cmd_options: Option<String>,
    pub executor: Option<Value>,
    pub remote_monitoring_radio: Option<Value>,
    pub enable_mpi_mode: bool,
    pub mpi_launcher: Option<Value>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kind: EngineKind::default(),
            endpoint_id: None,
            label: None,
            provider: ProviderOptions::default(),
            max_retries_on_system_failure: 0,
            working_dir: PathBuf::from("tasks_working_dir"),
            run_in_sandbox: false,
            allowed_serializers: Vec::new(),
            result_size_limit: 10 * 1024 * 1024,
            python: None,
            worker_start_timeout: 600,
            max_workers_per_node: None,
            cores_per_worker: 1.0,
            mem_per_worker: None,
            cpu_affinity: CpuAffinity::default(),
            available_accelerators: Accelerators::default(),
            prefetch_capacity: 0,
            address: None,
            shared_file_system: true,
            worker_port: None,
            worker_port_range: None,
            address_probe_timeout: None,
            heartbeat_period: 30,
            heartbeat_threshold: 120,
            encrypted: true,
            worker_debug: false,
            worker_logdir_root: None,
            block_error_handler: true,
            strategy: None,
            job_status_kwargs: serde_json::Map::new(),
            drain_period: None,
            poll_period: None,
            loopback_address: None,
            interchange_port_range: None,
            launch_cmd: None,
            interchange_launch_cmd: None,
            storage_access: None,
            manager_selector: None,
            container_type: None,
            container_uri: None,
            container_cmd_options: None,
            executor: None,
            remote_monitoring_radio: None,
            enable_mpi_mode: false,
            mpi_launcher: None,
        }
    }
}

/// No queue takes a longer one.
const MOST_RESULT: u64 = 64 << 20;

/// A day: in seconds.
const MOST_START: u64 = 86_400;

/// `container_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Containers {
    Docker,
    Podman,
    PodmanHpc,
    Apptainer,
    Singularity,
    Custom,
}

/// Why options can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOptions {
    #[error("cpu_affinity `{0}` is none of: none, block, block-reverse, alternating, list:<cpus>:<cpus>...")]
    Affinity(String),
    #[error("{option} must be {must}")]
    Range { option: &'static str, must: &'static str },
    /// Running without it would not be what the user asked for, so the engine does not start.
    #[error("{what} is not supported yet; meanwhile {meanwhile}")]
    Unsupported { what: &'static str, meanwhile: &'static str },
    #[error("{former} is now called {now}; its options keep their names")]
    Renamed { former: &'static str, now: &'static str },
    #[error(
        "'{0}' is not a valid engine. Valid options are: GlobusComputeEngine, GlobusMPIEngine, ProcessPoolEngine, \
         ThreadPoolEngine"
    )]
    UnknownEngine(String),
    #[error("MPI mode is not supported on GlobusComputeEngine. Use GlobusMPIEngine instead.")]
    Mpi,
    #[error("{0}")]
    Shape(String),
}

impl Options {
    /// Reads the mapping under `engine:`; without a `type` it is a GlobusComputeEngine's.
    pub fn from_value(value: Value) -> Result<Self, InvalidOptions> {
        let options = kind::read(value)?;
        options.check()?;
        Ok(options)
    }

    /// Refuses values no node could work with.
    pub fn check(&self) -> Result<(), InvalidOptions> {
        let refuse = |option, must| Err(InvalidOptions::Range { option, must });
        if self.container_type.is_some() {
            let meanwhile = "run workers without a container";
            return Err(InvalidOptions::Unsupported { what: "container_type", meanwhile });
        }
        if self.executor.is_some() {
            let meanwhile = "write its options under `engine` itself";
            return Err(InvalidOptions::Unsupported { what: "executor, a Python object,", meanwhile });
        }
        if matches!(self.address, Some(Address::Found(Finder::AddressByQuery { .. }))) {
            let meanwhile = "write the address itself: the query would go to a server on the internet";
            return Err(InvalidOptions::Unsupported { what: "address_by_query", meanwhile });
        }
        if self.enable_mpi_mode || self.mpi_launcher.is_some() {
            return Err(InvalidOptions::Mpi);
        }
        if self.label.as_deref().is_some_and(|label| !is_part_of_a_name(label)) {
            let must = "part of a file's name: of 128 bytes at most, without `/` and control characters, and not `.` or `..`";
            return refuse("label", must);
        }
        if self.kind.pool_size(1) == Some(0) {
            return refuse("max_workers", "at least 1");
        }
        if matches!(self.kind, EngineKind::ProcessPool { max_tasks_per_child: Some(0), .. }) {
            return refuse("max_tasks_per_child", "at least 1");
        }
        if self.drain_period == Some(0) {
            return refuse("drain_period", "at least 1");
        }
        if self.worker_port_range.is_some_and(|(low, high)| low >= high) {
            return refuse("worker_port_range", "two ports, the second above the first");
        }
        self.scaling()?;
        if !(self.cores_per_worker.is_finite() && self.cores_per_worker > 0.0) {
            return refuse("cores_per_worker", "greater than 0");
        }
        if self.mem_per_worker.is_some_and(|memory| !(memory.is_finite() && memory > 0.0)) {
            return refuse("mem_per_worker", "greater than 0");
        }
        if self.max_workers_per_node == Some(0) {
            return refuse("max_workers_per_node", "at least 1");
        }
        if !(128..=MOST_RESULT).contains(&self.result_size_limit) {
            return refuse("result_size_limit", "between 128 and 67108864");
        }
        if !(1..=MOST_START).contains(&self.worker_start_timeout) {
            return refuse("worker_start_timeout", "between 1 and 86400");
        }
        if self.heartbeat_period == 0 || self.heartbeat_threshold <= self.heartbeat_period {
            return refuse("heartbeat_threshold", "greater than heartbeat_period, and that at least 1");
        }
        self.provider.check()
    }

    /// The options that are set but mean nothing here, each with the reason to log.
    pub fn without_meaning(&self) -> Vec<(&'static str, &'static str)> {
        const INSIDE: &str = "the engine runs inside the endpoint";
        let mut found = Vec::new();
        let mut note = |set: bool, name, why| {
            if set {
                found.push((name, why));
            }
        };
        let threads = matches!(self.kind, EngineKind::ThreadPool { .. });
        note(self.endpoint_id.is_some(), "endpoint_id", "the endpoint's directory says which one it is");
        note(
            self.scaling().is_ok_and(|scaling| scaling.period.is_some()),
            "job_status_kwargs.strategy_period",
            "blocks follow the tasks at once, without a period",
        );
        note(!self.encrypted, "encrypted", "the link to nodes is always encrypted");
        note(
            self.poll_period.is_some(),
            "poll_period",
            "nothing polls: every hop is woken by what it waits for",
        );
        note(self.loopback_address.is_some(), "loopback_address", INSIDE);
        note(self.interchange_port_range.is_some(), "interchange_port_range", INSIDE);
        note(self.interchange_launch_cmd.is_some(), "interchange_launch_cmd", INSIDE);
        note(
            self.launch_cmd.is_some(),
            "launch_cmd",
            "nodes run the endpoint's own file, which knows no other worker pool",
        );
        note(self.storage_access.is_some(), "storage_access", "files are not staged");
        note(
            self.manager_selector.is_some(),
            "manager_selector",
            "tasks always go to the node with most room",
        );
        note(
            self.remote_monitoring_radio.is_some(),
            "remote_monitoring_radio",
            "it belongs to Parsl's monitoring, which has no part in an endpoint",
        );
        note(
            self.container_uri.is_some() || self.container_cmd_options.is_some(),
            "container_uri, container_cmd_options",
            "without container_type, workers run in no container",
        );
        note(
            threads && self.run_in_sandbox,
            "run_in_sandbox",
            "the threads of a process share one working directory",
        );
        let blocks = self.provider.blocks();
        note(
            self.kind == EngineKind::Compute && self.provider.has_command_timeout(),
            "provider.cmd_timeout",
            "blocks on this machine are started without a command that could hang",
        );
        note(
            blocks.launcher.is_quiet(),
            "provider.launcher.debug",
            "launchers print nothing of their own; what they run is in the script, which is kept",
        );
        note(
            matches!(blocks.launcher, Launcher::SimpleLauncher { .. }) && blocks.nodes_per_block > 1,
            "provider.nodes_per_block",
            "SimpleLauncher starts one node, however many a block has",
        );
        found
    }

    /// How blocks follow the tasks.
    pub(crate) fn scaling(&self) -> Result<strategy::Scaling, InvalidOptions> {
        strategy::read(self.strategy.as_ref(), &self.job_status_kwargs)
    }

    /// The name in logs, job names and status reports.
    pub fn label(&self) -> &str {
        self.label.as_deref().filter(|label| !label.is_empty()).unwrap_or(self.kind.name())
    }
}

/// Files have names of 255 bytes at most, and more than the label stands in them.
const LONGEST_LABEL: usize = 128;

/// Directories, scripts and logs are named by it: it must not lead out of where they lie.
fn is_part_of_a_name(label: &str) -> bool {
    label.len() <= LONGEST_LABEL
        && !["..", "."].contains(&label)
        && !label.chars().any(|character| character == '/' || character.is_control())
}

/// Everything an engine needs to start.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    pub endpoint: EndpointId,
    /// The endpoint's directory, absolute: scripts, logs and the key file lie below it.
    pub run_dir: PathBuf,
    /// The program a block runs; the engine appends `--config FILE --block N`.
    pub node_command: Vec<String>,
    /// The limit of open files that users had, when the owner has raised its own: blocks get it back.
    pub open_files: Option<u64>,
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
        match self.options.kind {
            EngineKind::Compute => format!("{}-HighThroughputExecutor", self.options.label()),
            EngineKind::ProcessPool { .. } | EngineKind::ThreadPool { .. } => self.options.label().to_owned(),
        }
    }

    pub(crate) fn heartbeat_period(&self) -> Duration {
        Duration::from_secs(self.options.heartbeat_period)
    }

    pub(crate) fn heartbeat_threshold(&self) -> Duration {
        Duration::from_secs(self.options.heartbeat_threshold)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_names_that_users_configure_are_understood() {
        let options = Options::from_value(json!({
            "label": "Midway@RCC",
            "max_workers_per_node": 2,
            "cores_per_worker": 1,
            "cpu_affinity": "LIST:0-1:2,3",
            "available_accelerators": [0, "opencl:gpu:1"],
            "worker_port_range": [50000, 51000],
            "address": "127.0.0.1",
            "encrypted": false,
            "job_status_kwargs": {"max_idletime": 90},
            "provider": {
                "type": "LocalProvider",
                "max_blocks": 3,
                "worker_init": "module load python",
                "launcher": {"type": "SingleNodeLauncher", "debug": false},
            },
        }))
        .unwrap();
        assert_eq!(options.label(), "Midway@RCC");
        assert_eq!(options.cpu_affinity, CpuAffinity::List(vec![vec![0, 1], vec![2, 3]]));
        assert_eq!(options.available_accelerators.names(), ["0", "opencl:gpu:1"]);
        assert_eq!(options.provider.blocks().max_blocks, 3);
        let names: Vec<_> = options.without_meaning().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["encrypted", "provider.launcher.debug"]);
        assert_eq!(Options::from_value(json!({})).unwrap(), Options::default());
    }

    #[test]
    fn a_label_can_not_leave_its_directory() {
        for (label, fine) in [
            ("Midway@RCC.UChicago", true),
            ("..a", true),
            ("a b $x", true),
            ("", true),
            (&"x".repeat(128), true),
            ("..", false),
            (".", false),
            ("../../../tmp/x", false),
            ("/tmp/x", false),
            ("a/b", false),
            ("a\nb", false),
            ("a\0b", false),
            (&"x".repeat(129), false),
        ] {
            for kind in ["GlobusComputeEngine", "ThreadPoolEngine"] {
                let read = Options::from_value(json!({"type": kind, "label": label}));
                assert_eq!(read.is_ok(), fine, "{label:?}");
                let Ok(options) = read else { continue };
                let endpoint = EndpointId::from_uuid(uuid::Uuid::nil());
                let config = EngineConfig {
                    endpoint,
                    run_dir: "/run".into(),
                    node_command: Vec::new(),
                    open_files: None,
                    options,
                };
                assert_eq!(config.engine_dir().parent(), Some(std::path::Path::new("/run")), "{label:?}");
                assert_ne!(config.engine_dir(), config.run_dir);
            }
        }
        let refused = Options::from_value(json!({"label": "../x"})).unwrap_err().to_string();
        assert!(refused.starts_with("label must be part of a file's name: "), "{refused}");
    }

    #[test]
    fn what_no_node_could_work_with_is_refused_by_name() {
        for (options, words) in [
            (json!({"max_worker_per_node": 1}), "unknown field `max_worker_per_node`"),
            (json!({"provider": {"type": "NoProvider"}}), "unknown variant `NoProvider`"),
            (json!({"cores_per_worker": 0}), "cores_per_worker must be greater than 0"),
            (json!({"mem_per_worker": -1.0}), "mem_per_worker must be greater than 0"),
            (json!({"max_workers_per_node": 0}), "max_workers_per_node must be at least 1"),
            (json!({"result_size_limit": 100}), "result_size_limit must be between 128 and"),
            (json!({"worker_start_timeout": 0}), "worker_start_timeout must be between 1 and 86400"),
            (json!({"heartbeat_period": 120}), "heartbeat_threshold must be greater than heartbeat_period"),
            (json!({"cpu_affinity": "sideways"}), "cpu_affinity `sideways` is none of: none, block"),
            (json!({"cpu_affinity": "list:5-1"}), "is none of"),
            (json!({"container_type": "docker"}), "container_type is not supported yet"),
            (
                json!({"provider": {"type": "LocalProvider", "max_blocks": 1, "min_blocks": 2}}),
                "max_blocks must be",
            ),
        ] {
            let error = Options::from_value(options).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
