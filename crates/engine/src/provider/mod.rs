//! Providers: where blocks come from.
//!
//! A provider submits a job that runs one command per node, tells the state of many jobs in one call, and
//! cancels. It may never know tasks, nodes or the link, and it decides nothing: when to ask for a block is the
//! core's.

mod local;

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::config::InvalidOptions;
use crate::launcher::Launcher;

pub(crate) use local::quote;

/// What a job is asked to do.
#[derive(Clone)]
pub struct Job {
    /// `parsl.<label>.block-<n>.<time>`, as sites know it.
    pub name: String,
    /// Runs one node; the launcher multiplies it.
    pub command: String,
    /// For the job's environment, and for no file: it may hold this run's keys.
    pub environment: Vec<(String, String)>,
}

/// The scheduler's name for a job.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub String);

/// How a job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// Waits for its turn.
    Pending,
    Running,
    /// Stopped by somebody who may let it go on.
    Held,
    Completed(Output),
    Failed(Output),
    /// Its walltime was over: no failure.
    TimedOut(Output),
    Cancelled(String),
}

/// What a job that ended left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    pub message: Option<String>,
    pub exit_code: Option<i32>,
    pub stdout: Option<PathBuf>,
    pub stderr: Option<PathBuf>,
}

/// Why a job could not be submitted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    #[error("cannot write {path}: {error}")]
    Script { path: PathBuf, error: std::io::Error },
    #[error("cannot run /bin/bash: {0}")]
    Shell(std::io::Error),
    /// In the scheduler's words.
    #[error("{0}")]
    Refused(String),
}

pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Gives blocks.
pub trait Provider: Send + Sync {
    fn submit(&self, job: Job) -> Answer<'_, Result<JobId, SubmitError>>;

    /// The state of all these jobs, asked in one go. A job whose state it could not learn is absent, and asked for again.
    fn status<'a>(&'a self, jobs: &'a [JobId]) -> Answer<'a, HashMap<JobId, JobState>>;

    fn cancel<'a>(&'a self, jobs: &'a [JobId]) -> Answer<'a, ()>;

    /// How often the state is asked for when nothing says it has changed.
    fn status_period(&self) -> Duration;

    /// Woken when a state may have changed before the period is over.
    fn changed(&self) -> Arc<Notify>;
}

/// `provider:` under an engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum ProviderOptions {
    LocalProvider(BlockOptions),
}

impl Default for ProviderOptions {
    fn default() -> Self {
        Self::LocalProvider(BlockOptions::default())
    }
}

/// The parameters every provider has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BlockOptions {
    pub nodes_per_block: u32,
    pub init_blocks: u32,
    pub min_blocks: u32,
    pub max_blocks: u32,
    pub parallelism: f64,
    /// Shell text that runs before the node, in the same shell.
    pub worker_init: String,
    pub launcher: Launcher,
    /// In seconds.
    pub cmd_timeout: Option<u64>,
}

impl Default for BlockOptions {
    fn default() -> Self {
        Self {
            nodes_per_block: 1,
            init_blocks: 1,
            min_blocks: 0,
            max_blocks: 1,
            parallelism: 1.0,
            worker_init: String::new(),
            launcher: Launcher::default(),
            cmd_timeout: None,
        }
    }
}

impl BlockOptions {
    /// What a block's shell runs.
    pub(crate) fn script(&self, job: &Job, scripts: &Path) -> String {
        format!(
            "{}\nexport JOBNAME={}\n{}\n",
            self.worker_init,
            quote(&job.name),
            self.launcher.wrap(&job.command, self.nodes_per_block, scripts)
        )
    }
}

impl ProviderOptions {
    pub(crate) fn check(&self) -> Result<(), InvalidOptions> {
        let blocks = self.blocks();
        let refuse = |option, must| Err(InvalidOptions::Range { option, must });
        if blocks.nodes_per_block == 0 {
            return refuse("nodes_per_block", "at least 1");
        }
        if blocks.max_blocks < blocks.min_blocks {
            return refuse("max_blocks", "at least min_blocks");
        }
        if !(0.0..=1.0).contains(&blocks.parallelism) {
            return refuse("parallelism", "between 0 and 1");
        }
        Ok(())
    }

    /// What all providers have in common.
    pub fn blocks(&self) -> &BlockOptions {
        match self {
            Self::LocalProvider(blocks) => blocks,
        }
    }

    pub(crate) fn has_command_timeout(&self) -> bool {
        self.blocks().cmd_timeout.is_some()
    }

    /// The class name users know.
    pub fn name(&self) -> &'static str {
        match self {
            Self::LocalProvider(_) => "LocalProvider",
        }
    }

    /// The provider itself; its scripts and their outputs go to `scripts`, and blocks on this machine get this limit of
    /// open files.
    pub(crate) fn build(&self, scripts: PathBuf, open_files: Option<u64>) -> Arc<dyn Provider> {
        match self {
            Self::LocalProvider(blocks) => {
                Arc::new(local::LocalProvider::new(scripts, blocks.clone(), open_files))
            }
        }
    }
}
