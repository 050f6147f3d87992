//! What the owner of an engine sees: submissions go in, events come out.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use wire::TaskId;

use crate::config::EngineConfig;
use crate::provider::Provider;
use crate::driver::Command;
use crate::start::{self, StartError};

/// One task for the engine.
#[derive(Clone, Debug)]
pub struct Submission {
    pub id: TaskId,
    /// The task message as delivered, first byte 0x01. Never re-encoded.
    pub body: Bytes,
    /// The header `resource_specification`; empty when absent.
    pub resource_specification: serde_json::Map<String, serde_json::Value>,
    /// The header `result_serializers`.
    pub result_serializers: Vec<String>,
    /// The header `function_python`: the interpreter version the function was registered from.
    pub function_python: Option<String>,
}

/// What the engine tells its owner.
#[derive(Clone, Debug)]
pub enum Event {
    /// These tasks will be sent to a node as soon as the owner answers [`Handle::begin`].
    Assigned(Vec<TaskId>),
    /// The one end of this task: a packed wire result, ready to be published.
    Ended { task: TaskId, result: Bytes },
    /// These tasks never began and will not: the engine is stopping.
    Returned(Vec<TaskId>),
    /// The engine can't run tasks any more. What was outstanding ends with this text; so does what comes later.
    Bad { text: String },
}

/// The engine's events, in order. The channel closes when the engine has stopped and everything is said.
///
/// Unbounded, because its length is: at most a few events per task, and the owner bounds the tasks it submits.
pub type Events = mpsc::UnboundedReceiver<Event>;

/// The engine has stopped; the call came too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the engine has stopped")]
pub struct Stopped;

/// Starts engines.
pub struct Engine;

impl Engine {
    /// As [`Self::start`], with blocks from a provider of the owner's.
    pub async fn start_on(
        config: EngineConfig,
        provider: Arc<dyn Provider>,
    ) -> Result<(Handle, Events), StartError> {
        let (commands, inbox) = mpsc::unbounded_channel();
        let (outbox, events) = mpsc::unbounded_channel();
        start::start(config, provider, inbox, outbox).await?;
        Ok((Handle { commands }, events))
    }

    /// Starts an engine on the runtime of the caller (a current-thread one is fastest) and asks for its first
    /// blocks at once. Every file and socket is made before this returns.
    pub async fn start(config: EngineConfig) -> Result<(Handle, Events), StartError> {
        let provider = config.options.provider.build(config.scripts(), config.open_files);
        Self::start_on(config, provider).await
    }
}

/// Speaks to a running engine. Cloned freely; dropping the last one stops the engine without grace.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
}

impl Handle {
    /// Hands over one task. The owner bounds how many are outstanding.
    pub fn submit(&self, submission: Submission) -> Result<(), Stopped> {
        self.send(Command::Submit(submission))
    }

    /// Answers [`Event::Assigned`]: the owner has written down that these tasks have begun.
    pub fn begin(&self, tasks: Vec<TaskId>) -> Result<(), Stopped> {
        self.send(Command::Begin(tasks))
    }

    /// Ends a task as cancelled; kills its worker when it runs. Does nothing to a task that has ended, nor to one that
    /// runs in a thread of a ThreadPoolEngine: threads can't be ended.
    pub fn cancel(&self, task: TaskId) -> Result<(), Stopped> {
        self.send(Command::Cancel(task))
    }

    /// The figures an endpoint's heartbeat carries.
    pub async fn report(&self) -> Result<Report, Stopped> {
        let (answer, report) = oneshot::channel();
        self.send(Command::Report(answer))?;
        report.await.map_err(|_| Stopped)
    }

    /// Stops: what has not begun is returned, what runs has `grace` to end, the rest ends with the lost text.
    /// The events channel closes when all is done. A second call with a shorter grace hurries the first.
    pub fn stop(&self, grace: std::time::Duration) -> Result<(), Stopped> {
        self.send(Command::Stop(grace))
    }

    fn send(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).map_err(|_| Stopped)
    }
}

/// The figures of `global_state` in a status report that are the engine's; the endpoint adds its own.
///
/// Serializes to the names of the contract.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    pub managers: u32,
    pub active_managers: u32,
    /// Nodes that have called and whose interpreter is still starting; they are among `managers`. Ours.
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
    pub node_info: std::collections::BTreeMap<String, Vec<NodeInfo>>,
    pub engine_type: &'static str,
    pub provider_type: &'static str,
    pub queue: Option<String>,
    pub account: Option<String>,
    /// What the last block that failed has said, until a task comes to a result. Ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_block_failure: Option<String>,
    /// Why a node that is connected has fewer slots than it could have: a worker did not start. Ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots_missing: Option<String>,
    /// Of the pools only.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineInfo>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// What a pool tells of the one machine it runs on.
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
