//! Providers: get blocks from a batch scheduler, or start them on this machine.
//!
//! A provider submits a job that runs one command per node, reports the state of many jobs in one call, and cancels jobs.
//! It knows nothing of tasks, nodes or the link, and it decides nothing: the core decides when a block is needed.

#[cfg_attr(not(test), expect(dead_code, reason = "no provider submits to a batch scheduler yet"))]
mod ledger;
mod local;
#[cfg_attr(not(test), expect(dead_code, reason = "no provider submits to a batch scheduler yet"))]
mod scheduler;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::config::{BlockOptions, ProviderKind, ProviderOptions};
use crate::quote::quote;

/// A job to be submitted.
#[derive(Clone, Debug)]
pub struct Job {
    /// `parsl.<label>.block-<n>.<time>`, the form that sites know from upstream.
    pub name: String,
    /// The words of the command that runs one node, without `--config`. The launcher runs it once for each node.
    pub node_command: Vec<String>,
    /// How the job's nodes get their configuration.
    pub staging: Staging,
}

impl Job {
    /// The shell command that runs one node, which finds its configuration in the file `config`.
    pub fn command(&self, config: &str) -> String {
        let words = self.node_command.iter().map(String::as_str).chain(["--config", config]);
        words.map(quote).collect::<Vec<_>>().join(" ")
    }
}

/// How nodes get their configuration, which holds this run's keys. Keys must not be in a job's environment, command
/// or script: schedulers show these to other users.
#[derive(Clone, Debug)]
pub enum Staging {
    /// A file, readable by its owner only, that nodes see at the same path.
    SharedFile(PathBuf),
    /// A file of this machine, readable by its owner only, that the provider transfers to the nodes.
    TransferredFile(PathBuf),
    /// The content of that file. The provider passes it in the way that its system has for secrets.
    Secret(Secret),
}

/// How a provider passes the configuration to nodes that do not see the endpoint's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StagingKind {
    TransferredFile,
    Secret,
}

/// Text that is kept out of logs.
#[derive(Clone)]
pub struct Secret(Arc<str>);

impl Secret {
    pub(crate) fn new(text: String) -> Self {
        Self(text.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The scheduler's id of a job.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub String);

/// The state of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// Waits in the scheduler's queue.
    Pending,
    Running,
    /// Held back by a user or an administrator, who may release it.
    Held,
    Completed(JobOutput),
    Failed(JobOutput),
    /// Ended by its walltime, which is no failure.
    TimedOut(JobOutput),
    Cancelled(String),
    /// The scheduler answered, and does not know this job.
    Gone,
}

/// Exit status and output of a job that has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobOutput {
    pub message: Option<String>,
    pub exit_code: Option<i32>,
    pub stdout: Option<PathBuf>,
    pub stderr: Option<PathBuf>,
}

/// Why a job was not submitted, in the scheduler's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// There is no job, and the same request would be refused again.
    #[error("{0}")]
    Refused(String),
    /// There is no job; the same request may succeed later.
    #[error("{0}")]
    TryAgain(String),
    /// The answer was lost: there may be a job, which [`Provider::find`] finds.
    #[error("{0}")]
    Unknown(String),
}

/// The scheduler could not be asked, or its answer was not understood: nothing is known of its jobs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot ask the scheduler: {0}")]
pub struct QueryError(pub String);

/// Jobs that may still run although they were to be cancelled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct CancelError {
    pub jobs: Vec<JobId>,
    pub reason: String,
}

pub type ProviderFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Submits, watches and cancels the jobs that are blocks.
pub trait Provider: Send + Sync {
    fn submit(&self, job: Job) -> ProviderFuture<'_, Result<JobId, SubmitError>>;

    /// The states of all these jobs, by one request to the scheduler. A job that is missing in the answer is absent
    /// here, too, and asked for again.
    fn status<'a>(
        &'a self,
        jobs: &'a [JobId],
    ) -> ProviderFuture<'a, Result<HashMap<JobId, JobState>, QueryError>>;

    /// The job of this name, if the scheduler has one.
    fn find<'a>(&'a self, name: &'a str) -> ProviderFuture<'a, Result<Option<JobId>, QueryError>>;

    /// Cancels jobs. One that has ended already counts as cancelled.
    fn cancel<'a>(&'a self, jobs: &'a [JobId]) -> ProviderFuture<'a, Result<(), CancelError>>;

    /// How it passes the configuration to nodes that do not see the endpoint's files.
    fn staging(&self) -> StagingKind;

    /// The queue (partition) that its jobs go to, for the endpoint's status.
    fn queue(&self) -> Option<&str> {
        None
    }

    /// The account (project) that its jobs are charged to, for the endpoint's status.
    fn account(&self) -> Option<&str> {
        None
    }

    /// How often states are polled when [`Self::changed`] does not wake.
    fn status_period(&self) -> Duration;

    /// Notified when a state may have changed before the period is over.
    fn changed(&self) -> Arc<Notify>;
}

/// Makes the provider that the options describe. Its scripts and their outputs go to `scripts`; blocks on this
/// machine get the limit `open_files`.
pub(crate) fn build(
    options: &ProviderOptions,
    scripts: PathBuf,
    open_files: Option<u64>,
) -> Arc<dyn Provider> {
    match &options.kind {
        ProviderKind::LocalProvider(_) => {
            Arc::new(local::LocalProvider::new(scripts, options.blocks.clone(), open_files))
        }
    }
}

/// The script of a block, whose nodes read their configuration from the file `config`.
pub(crate) fn script(blocks: &BlockOptions, job: &Job, config: &str, scripts: &Path) -> String {
    format!(
        "{}\nexport JOBNAME={}\n{}\n",
        blocks.worker_init,
        quote(&job.name),
        blocks.launcher.wrap(&job.command(config), blocks.nodes_per_block, scripts)
    )
}
