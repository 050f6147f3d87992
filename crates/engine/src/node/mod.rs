//! The node: runs on a machine of a block, and owns its slots and Python workers.
//!
//! It connects to the engine, gives each task to a worker and sends the worker's answer back unchanged. It ends when
//! its engine is gone, with every process that it has started. It must not store tasks: the engine decides what
//! becomes of those that have not ended.

mod accelerators;
mod allotment;
mod config;
mod connect;
mod descriptors;
mod driver;
mod error;
mod file_thread;
pub(crate) mod library;
mod log;
mod node_directory;
mod outbox;
mod python;
mod resources;
#[cfg(feature = "simulation")]
mod simulated;
mod slots;
mod task_socket;
mod threads;
pub(crate) mod worker;

use std::future::Future;
use std::pin::pin;

use tokio::sync::mpsc;

pub(crate) use config::WorkerConfig;
pub use config::{Config, ConfigError};
pub use error::NodeError;
pub(crate) use node_directory::remove_abandoned;
pub use resources::NoSlots;
pub(crate) use resources::{count_cores, machine_info};
#[cfg(feature = "simulation")]
pub use simulated::simulate;

use crate::config::Workers;
use crate::link::message::{self, Hello};
use crate::processes;
use crate::random;
use descriptors::Descriptors;
use driver::Node;
use node_directory::NodeDirectory;
use outbox::Outbox;
use resources::Machine;
use worker::WorkerSpec;

/// Runs one node of `block` until its engine is gone or `stop` is ready. `open_files` is the limit that workers get,
/// when this process has raised its own.
pub async fn run(
    config: Config,
    block: u32,
    open_files: Option<u64>,
    stop: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    processes::adopt_orphans();
    let uid = random::node_uid();
    let machine = Machine::inspect(&config.accelerators).await;
    let threads = matches!(config.workers, Workers::Threads { .. });
    let wanted = resources::count_slots(&config, &machine)?;
    let (count, shortage) = Descriptors::read().fit(wanted, threads);
    if let Some(why) = &shortage {
        tracing::warn!("{why}");
        if count == 0 {
            return Err(NoSlots::Descriptors(why.clone()).into());
        }
    }
    let worker_resources: Result<Vec<_>, _> =
        (0..count).map(|rank| resources::for_worker(&config, &machine, rank, count)).collect();
    let own = node_directory::path(&uid);
    let root = config.logs.clone().unwrap_or_else(|| own.clone());
    let logs = root.join(format!("block-{block}")).join(&uid);
    let _own = (config.logs.is_none() || config.worker_library.is_none())
        .then(|| {
            remove_abandoned();
            NodeDirectory::create(own.clone())
        })
        .transpose()
        .map_err(|error| NodeError::Logs { path: own.clone(), error })?;
    std::fs::create_dir_all(&logs).map_err(|error| NodeError::Logs { path: logs.clone(), error })?;
    let library = match &config.worker_library {
        Some(library) => library.clone(),
        None => {
            let root = own.join("worker");
            library::install(&root).map_err(|error| NodeError::Logs { path: root, error })?
        }
    };
    // The directory is relative only where the node does not see the endpoint's files.
    let working_dir = own.join(&config.worker.working_dir);
    let thread_name_prefix = match &config.workers {
        Workers::Threads { name_prefix } => Some(name_prefix.clone()),
        Workers::Processes { .. } => None,
    };
    let max_tasks = match config.workers {
        Workers::Processes { max_tasks } => max_tasks,
        Workers::Threads { .. } => None,
    };
    let worker = WorkerConfig { working_dir, thread_name_prefix, ..config.worker.clone() };
    let spec = WorkerSpec {
        python: python::find_interpreter(config.python.as_deref())?,
        library,
        config: worker,
        writer: log::LogWriter::start().map_err(|error| NodeError::Logs { path: logs.clone(), error })?,
        logs,
        pool: uid.clone(),
        block,
        count,
        start_limit: config.start_limit,
        open_files,
    };
    let host = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
    let version = message::VERSION.to_owned();
    let (frames, outgoing) = mpsc::unbounded_channel();
    let mut out = Outbox::new(frames);
    // The first frame on the link. It does not wait for the interpreter.
    let run = config.run.clone();
    out.send(message::hello(&Hello { version, run, uid, host, block, slots: count }));
    if let Some(why) = shortage {
        out.send(message::slots(count, &why));
    }
    let (sender, events) = mpsc::unbounded_channel();
    let mut node = Node::new(spec, worker_resources?, max_tasks, threads, sender)?;
    let outcome = {
        let mut stop = pin!(stop);
        tokio::select! {
            outcome = node.serve(&config, events, out, outgoing) => outcome,
            () = &mut stop => Ok(()),
        }
    };
    node.kill_workers().await;
    outcome
}
