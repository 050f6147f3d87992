//! The kinds of engines, and how they differ.

use serde::{Deserialize, Serialize};

/// The kinds of engines, each with the options that only it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum EngineKind {
    /// Blocks from a provider, nodes that connect to the engine, workers on nodes.
    #[default]
    Compute,
    /// This machine only; one process per worker.
    ProcessPool {
        /// Absent: one for each core.
        max_workers: Option<u32>,
        /// A worker is replaced after this many tasks.
        max_tasks_per_child: Option<u32>,
    },
    /// This machine only; one process whose threads are the workers.
    ThreadPool {
        /// Absent: four more than there are cores, 32 at most.
        max_workers: Option<u32>,
        thread_name_prefix: String,
    },
}

pub(super) const COMPUTE: &str = "GlobusComputeEngine";
pub(super) const PROCESSES: &str = "ProcessPoolEngine";
pub(super) const THREADS: &str = "ThreadPoolEngine";
pub(super) const MPI: &str = "GlobusMPIEngine";
pub(super) const FORMER: &str = "HighThroughputEngine";

/// How kinds of engines differ.
#[derive(Debug)]
pub(crate) struct Traits {
    /// The class name users know.
    pub(crate) name: &'static str,
    /// Follows the label in the names of jobs and directories, and in error texts.
    pub(crate) executor_suffix: &'static str,
    /// Whether users configure blocks, and tasks may ask for resources. Otherwise the engine is a pool: one block on this
    /// machine, as large as its user says.
    pub(crate) has_blocks: bool,
    /// Whether the workers are threads of one process. A thread can't be ended alone.
    pub(crate) threads: bool,
    /// The default number of workers of a pool, from the number of cores.
    default_pool_size: fn(u32) -> u32,
}

static COMPUTE_TRAITS: Traits = Traits {
    name: COMPUTE,
    executor_suffix: "-HighThroughputExecutor",
    has_blocks: true,
    threads: false,
    default_pool_size: |cores| cores,
};

static PROCESS_POOL_TRAITS: Traits =
    Traits { name: PROCESSES, executor_suffix: "", has_blocks: false, ..COMPUTE_TRAITS };

static THREAD_POOL_TRAITS: Traits = Traits {
    name: THREADS,
    executor_suffix: "",
    has_blocks: false,
    threads: true,
    default_pool_size: |cores| (cores + 4).min(32),
};

/// What the workers of a node are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Workers {
    /// Each is a process, replaced after `max_tasks` tasks.
    Processes { max_tasks: Option<u32> },
    /// All of them threads of one process.
    Threads { name_prefix: String },
}

impl EngineKind {
    pub(crate) fn traits(&self) -> &'static Traits {
        match self {
            Self::Compute => &COMPUTE_TRAITS,
            Self::ProcessPool { .. } => &PROCESS_POOL_TRAITS,
            Self::ThreadPool { .. } => &THREAD_POOL_TRAITS,
        }
    }

    /// The class name users know.
    pub fn name(&self) -> &'static str {
        self.traits().name
    }

    pub(crate) fn workers(&self) -> Workers {
        match self {
            Self::Compute => Workers::Processes { max_tasks: None },
            Self::ProcessPool { max_tasks_per_child, .. } => {
                Workers::Processes { max_tasks: *max_tasks_per_child }
            }
            Self::ThreadPool { thread_name_prefix, .. } => {
                Workers::Threads { name_prefix: thread_name_prefix.clone() }
            }
        }
    }

    /// The number of workers of a pool on a machine with `cores` cores; none if the engine is no pool.
    pub(crate) fn pool_size(&self, cores: u32) -> Option<u32> {
        match self {
            Self::Compute => None,
            Self::ProcessPool { max_workers, .. } | Self::ThreadPool { max_workers, .. } => {
                Some(max_workers.unwrap_or_else(|| (self.traits().default_pool_size)(cores)))
            }
        }
    }
}
