//! The options that users configure, by the names they know, with their defaults.
//!
//! An option of upstream that has no effect here is still accepted: a configuration that worked with upstream must
//! work here.

use std::ops::Range;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::address::Address;
use super::devices::{Accelerators, CpuAffinity};
use super::error::InvalidOptions;
use super::kind::EngineKind;
use super::provider::ProviderOptions;
use super::strategy::{self, ScalingOptions};

/// What a user writes under `engine:`. The fields are those of a GlobusComputeEngine; a pool sets those that it shares.
///
/// Keys whose value is null are dropped before this is read: they count as absent.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    #[serde(skip)]
    pub kind: EngineKind,
    /// Accepted without effect: the endpoint's directory says which id it has.
    pub endpoint_id: Option<Value>,
    pub label: Option<String>,
    pub provider: ProviderOptions,

    pub max_retries_on_system_failure: u32,
    pub working_dir: PathBuf,
    pub run_in_sandbox: bool,
    pub allowed_serializers: Vec<String>,
    /// In characters of the serialized result. An option of ours; upstream has only the default.
    pub result_size_limit: u64,
    /// The interpreter that runs the workers, looked up on the node's PATH after `worker_init`. An option of ours;
    /// absent means the first `python3`, else `python`.
    pub python: Option<String>,
    /// How long a worker may take to be ready, in seconds. An option of ours; upstream waits without end.
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
    /// Whether nodes see the endpoint's files. If not, the provider passes this run's keys to them. An option of
    /// ours.
    pub shared_file_system: bool,
    pub worker_port: Option<u16>,
    /// The engine listens on the first free port of this half-open range, when `worker_port` is absent.
    pub worker_port_range: (u16, u16),
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
    pub poll_period: u64,
    pub loopback_address: String,
    pub interchange_port_range: (u16, u16),
    pub launch_cmd: Option<String>,
    pub interchange_launch_cmd: Option<Value>,
    pub storage_access: Option<Value>,
    pub manager_selector: Option<Value>,
    pub container_type: Option<ContainerType>,
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
            worker_port_range: (54000, 55000),
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
            poll_period: 10,
            loopback_address: "127.0.0.1".to_owned(),
            interchange_port_range: (55000, 56000),
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

/// `container_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContainerType {
    Docker,
    Podman,
    PodmanHpc,
    Apptainer,
    Singularity,
    Custom,
}

impl Options {
    /// How the number of blocks follows the tasks.
    pub(crate) fn scaling(&self) -> Result<ScalingOptions, InvalidOptions> {
        strategy::read(self.strategy.as_ref(), &self.job_status_kwargs)
    }

    /// The ports that the engine may listen on.
    pub(crate) fn ports(&self) -> Range<u16> {
        match self.worker_port {
            Some(port) => port..port.saturating_add(1),
            None => self.worker_port_range.0..self.worker_port_range.1,
        }
    }

    /// The name in logs, job names and status reports.
    pub fn label(&self) -> &str {
        self.label.as_deref().filter(|label| !label.is_empty()).unwrap_or(self.kind.name())
    }
}
