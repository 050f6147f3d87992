//! The engine's report for the endpoint's heartbeat.

use std::collections::BTreeMap;

use serde::Serialize;

/// The engine's fields of `global_state` in a status report; the endpoint adds its own.
///
/// The serialized names are those of the protocol.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    pub managers: u32,
    pub active_managers: u32,
    /// Nodes that have connected and whose interpreter is still starting; `managers` counts them too. A field of
    /// ours.
    #[serde(skip_serializing_if = "is_zero")]
    pub starting_managers: u32,
    pub total_workers: u32,
    pub idle_workers: u32,
    pub pending_tasks: u64,
    pub outstanding_tasks: u64,
    pub total_tasks: u64,
    pub scaling_enabled: bool,
    pub mem_per_worker: Option<f64>,
    pub cores_per_worker: f64,
    pub prefetch_capacity: u32,
    pub max_blocks: u32,
    pub min_blocks: u32,
    pub max_workers_per_node: Option<u32>,
    pub nodes_per_block: u32,
    /// By job id.
    pub node_info: BTreeMap<String, Vec<NodeInfo>>,
    pub engine_type: &'static str,
    pub provider_type: &'static str,
    pub queue: Option<String>,
    pub account: Option<String>,
    /// Exit status and output of the last block that failed, until a task returns a result. A field of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_block_failure: Option<String>,
    /// Why a connected node has fewer slots than it could have: a worker did not start. A field of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots_missing: Option<String>,
    /// Pool engines only.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineInfo>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// The machine that a pool engine runs on.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MachineInfo {
    pub total_cores: u32,
    /// In GiB, to one decimal.
    pub total_mem: f64,
    pub total_core_hrs: u32,
}

/// One node in a [`Report`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeInfo {
    pub worker_count: u32,
    /// Seconds.
    pub idle_duration: f64,
    pub parsl_version: Option<String>,
    pub endpoint_version: String,
    pub sdk_version: Option<String>,
    pub python_version: Option<String>,
}
