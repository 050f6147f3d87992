//! The options users configure, by the names they know, and what the owner adds to them at start.
//!
//! Reading a file, its quirks and its templates is the owner's business; here arrives a tree of plain values.
//! An option without a meaning on this engine is still accepted when the contract lists it: a configuration that
//! worked before must work here. [`Options::without_meaning`] names those that were set, with the reason.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wire::EndpointId;

use crate::provider::ProviderOptions;

/// What a user writes under `engine:` for a GlobusComputeEngine, `type` excepted.
///
/// Null-valued keys count as absent: whoever reads the file drops them before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
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

    pub max_workers_per_node: Option<u32>,
    pub cores_per_worker: f64,
    /// In GB.
    pub mem_per_worker: Option<f64>,
    pub cpu_affinity: CpuAffinity,
    pub available_accelerators: Accelerators,
    pub prefetch_capacity: u32,

    /// The address the engine listens on and nodes call. Absent: the loopback address.
    pub address: Option<IpAddr>,
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

    pub strategy: Option<serde_json::Value>,
    pub job_status_kwargs: serde_json::Map<String, serde_json::Value>,
    /// In seconds.
    pub drain_period: Option<u64>,
    pub poll_period: Option<u64>,
    pub loopback_address: Option<String>,
    pub interchange_port_range: Option<(u16, u16)>,
    pub launch_cmd: Option<String>,
    pub interchange_launch_cmd: Option<serde_json::Value>,
    pub storage_access: Option<serde_json::Value>,
    pub manager_selector: Option<serde_json::Value>,
    pub container_type: Option<Containers>,
    pub container_uri: Option<String>,
    pub container_cmd_options: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            label: None,
            provider: ProviderOptions::default(),
            max_retries_on_system_failure: 0,
            working_dir: PathBuf::from("tasks_working_dir"),
            run_in_sandbox: false,
            allowed_serializers: Vec::new(),
            result_size_limit: 10 * 1024 * 1024,
            python: None,
            max_workers_per_node: None,
            cores_per_worker: 1.0,
            mem_per_worker: None,
            cpu_affinity: CpuAffinity::default(),
            available_accelerators: Accelerators::default(),
            prefetch_capacity: 0,
            address: None,
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
        }
    }
}

/// No queue takes a longer one.
const MOST_RESULT: u64 = 64 << 20;

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

/// `available_accelerators`: a count, which names them "0", "1", …, or their names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Accelerators {
    Count(u32),
    Names(Vec<AcceleratorName>),
}

/// A name; integers are read as names too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AcceleratorName {
    Text(String),
    Number(i64),
}

impl Default for Accelerators {
    fn default() -> Self {
        Self::Names(Vec::new())
    }
}

impl Accelerators {
    /// The names, in order; a worker of rank `i` gets the `i`-th.
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Count(count) => (0..*count).map(|index| index.to_string()).collect(),
            Self::Names(names) => names
                .iter()
                .map(|name| match name {
                    AcceleratorName::Text(text) => text.clone(),
                    AcceleratorName::Number(number) => number.to_string(),
                })
                .collect(),
        }
    }
}

/// `cpu_affinity`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CpuAffinity {
    #[default]
    None,
    Block,
    BlockReverse,
    Alternating,
    /// One list of CPUs per worker.
    List(Vec<Vec<usize>>),
}

impl TryFrom<String> for CpuAffinity {
    type Error = InvalidOptions;

    fn try_from(text: String) -> Result<Self, InvalidOptions> {
        let text = text.to_lowercase();
        match text.as_str() {
            "none" => Ok(Self::None),
            "block" => Ok(Self::Block),
            "block-reverse" => Ok(Self::BlockReverse),
            "alternating" => Ok(Self::Alternating),
            other => {
                let lists =
                    other.strip_prefix("list:").ok_or_else(|| InvalidOptions::Affinity(text.clone()))?;
                lists
                    .split(':')
                    .map(cpu_list)
                    .collect::<Option<Vec<_>>>()
                    .map(Self::List)
                    .ok_or(InvalidOptions::Affinity(text))
            }
        }
    }
}

impl From<CpuAffinity> for String {
    fn from(affinity: CpuAffinity) -> Self {
        match affinity {
            CpuAffinity::None => "none".into(),
            CpuAffinity::Block => "block".into(),
            CpuAffinity::BlockReverse => "block-reverse".into(),
            CpuAffinity::Alternating => "alternating".into(),
            CpuAffinity::List(lists) => {
                let mut text = String::from("list");
                for list in lists {
                    let cpus: Vec<_> = list.iter().map(usize::to_string).collect();
                    text.push(':');
                    text.push_str(&cpus.join(","));
                }
                text
            }
        }
    }
}

/// `a-b,c` as CPU numbers; none for anything else, and for more CPUs than any machine has.
fn cpu_list(text: &str) -> Option<Vec<usize>> {
    const MOST: usize = 1 << 16;
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (first.trim().parse().ok()?, last.trim().parse().ok()?),
            None => {
                let only: usize = part.trim().parse().ok()?;
                (only, only)
            }
        };
        if last >= MOST || first > last {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// Why options can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOptions {
    #[error("cpu_affinity `{0}` is none of: none, block, block-reverse, alternating, list:<cpus>:<cpus>...")]
    Affinity(String),
    #[error("{option} must be {must}")]
    Range { option: &'static str, must: &'static str },
    /// Running without it would not be what the user asked for, so the engine does not start.
    #[error("{0} is not supported yet")]
    Unsupported(&'static str),
    #[error("{0}")]
    Shape(String),
}

impl Options {
    /// Reads the mapping under `engine:`; the key `type` is the caller's and must be gone.
    pub fn from_value(value: serde_json::Value) -> Result<Self, InvalidOptions> {
        let options: Self =
            serde_json::from_value(value).map_err(|error| InvalidOptions::Shape(error.to_string()))?;
        options.check()?;
        Ok(options)
    }

    /// Refuses values no node could work with.
    pub fn check(&self) -> Result<(), InvalidOptions> {
        let refuse = |option, must| Err(InvalidOptions::Range { option, must });
        let unsupported = [
            (self.container_type.is_some(), "container_type"),
            (self.launch_cmd.is_some(), "launch_cmd"),
            (self.drain_period.is_some(), "drain_period"),
        ];
        if let Some((_, option)) = unsupported.into_iter().find(|(set, _)| *set) {
            return Err(InvalidOptions::Unsupported(option));
        }
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
        if self.heartbeat_period == 0 || self.heartbeat_threshold <= self.heartbeat_period {
            return refuse("heartbeat_threshold", "greater than heartbeat_period, and that at least 1");
        }
        self.provider.check()
    }

    /// The options that are set but mean nothing here, each with the reason to log.
    pub fn without_meaning(&self) -> Vec<(&'static str, &'static str)> {
        let mut found = Vec::new();
        let mut note = |set: bool, name, why| {
            if set {
                found.push((name, why));
            }
        };
        note(self.strategy.is_some(), "strategy", "blocks follow the strategy `simple`");
        note(!self.encrypted, "encrypted", "the link to nodes is always encrypted");
        note(
            self.poll_period.is_some(),
            "poll_period",
            "nothing polls: every hop is woken by what it waits for",
        );
        note(self.loopback_address.is_some(), "loopback_address", "the engine runs inside the endpoint");
        note(
            self.interchange_port_range.is_some(),
            "interchange_port_range",
            "the engine runs inside the endpoint",
        );
        note(
            self.interchange_launch_cmd.is_some(),
            "interchange_launch_cmd",
            "the engine runs inside the endpoint",
        );
        note(self.storage_access.is_some(), "storage_access", "files are not staged");
        note(
            self.manager_selector.is_some(),
            "manager_selector",
            "tasks always go to the node with most room",
        );
        note(self.address_probe_timeout.is_some(), "address_probe_timeout", "one address is advertised");
        found
    }

    /// The name in logs, job names and status reports.
    pub fn label(&self) -> &str {
        self.label.as_deref().unwrap_or("GlobusComputeEngine")
    }
}

/// Everything an engine needs to start.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    pub endpoint: EndpointId,
    /// The endpoint's directory, absolute: scripts, logs and the key file lie below it.
    pub run_dir: PathBuf,
    /// The program a block runs; the engine appends `--config FILE --block N`.
    pub node_command: Vec<String>,
    pub options: Options,
}

impl EngineConfig {
    /// Where the engine's own files lie: `<run_dir>/<executor label>`.
    pub(crate) fn engine_dir(&self) -> PathBuf {
        self.run_dir.join(self.executor_label())
    }

    /// The label by which jobs, directories and texts name this engine.
    pub(crate) fn executor_label(&self) -> String {
        format!("{}-HighThroughputExecutor", self.options.label())
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
        assert_eq!(names, ["encrypted"]);
        assert_eq!(Options::from_value(json!({})).unwrap(), Options::default());
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
