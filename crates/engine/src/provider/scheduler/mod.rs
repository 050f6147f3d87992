//! Batch schedulers: script text, command lines, and what their output means.
//!
//! ```text
//!  options ──► script text, command lines ──► (a driver runs them) ──► answers ──► typed states and errors
//! ```
//!
//! One room or file for each scheduler. Nothing in here runs a command, opens a file or reads the clock: a [`Scheduler`]
//! says which command to run and reads its answer. Whatever a scheduler prints, reading it must end and must not panic.
//! What it can't read is no news: it must never take an answer that it doesn't understand for the end of a job. A job has
//! ended only when the scheduler says so, or says that it does not know the job.

mod command;
mod condor;
mod grid_engine;
mod lsf;
mod pbs;
pub(crate) mod poll;
pub(crate) mod script;
mod slurm;
mod state;
pub(crate) mod waiting;

use std::path::{Path, PathBuf};

pub(crate) use command::{Answer, CommandLine, Environment, Outcome};
pub(crate) use poll::{Ask, Step};
pub(crate) use state::{BatchState, EndCause, Ended, Exit, JobReport, Verdict, Verdicts};
pub(crate) use waiting::{Expected, Holder, Wait, WaitReason};

use self::command::{READ, UNCHANGED};
use super::{CancelError, JobId, QueryError, SubmitError};
use crate::config::batch::{BatchOptions, SchedulerOptions};

/// The scheduler that the options describe.
pub(crate) fn build(options: &BatchOptions) -> Box<dyn Scheduler> {
    let nodes = options.blocks.nodes_per_block;
    match options.scheduler.clone() {
        SchedulerOptions::Slurm(options) => Box::new(slurm::Slurm::new(options, nodes)),
        SchedulerOptions::PbsPro(options) => Box::new(pbs::pro::PbsPro::new(options, nodes)),
        SchedulerOptions::Torque(options) => Box::new(pbs::torque::Torque::new(options, nodes)),
        SchedulerOptions::Lsf(options) => Box::new(lsf::Lsf::new(options, nodes)),
        SchedulerOptions::GridEngine(options) => Box::new(grid_engine::GridEngine::new(options)),
        SchedulerOptions::Condor(options) => Box::new(condor::Condor::new(options, nodes)),
    }
}

/// A block's job, for its script.
#[derive(Clone, Debug)]
pub(crate) struct BatchJob {
    pub(crate) name: String,
    /// The directory of scripts and outputs.
    pub(crate) scripts: PathBuf,
    pub(crate) worker_init: String,
    /// What the launcher has made of the node's command.
    pub(crate) command: String,
    /// A file that must be transferred to the nodes.
    pub(crate) transferred: Option<PathBuf>,
}

/// A file to write before the job is submitted. The last one is the one that is submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScriptFile {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// Where a job's output goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OutputFiles {
    pub(crate) stdout: PathBuf,
    pub(crate) stderr: PathBuf,
}

/// The files `<path>.stdout` and `<path>.stderr`.
pub(super) fn beside(path: &Path) -> OutputFiles {
    let with = |suffix: &str| PathBuf::from(format!("{}{suffix}", path.display()));
    OutputFiles { stdout: with(".stdout"), stderr: with(".stderr") }
}

/// One batch scheduler.
pub(crate) trait Scheduler: Send + Sync {
    /// Its name in texts for users.
    fn name(&self) -> &'static str;

    /// The programs without which it can't work, to be looked for before anything starts.
    fn programs(&self) -> &'static [&'static str];

    /// The files of a job.
    fn files(&self, job: &BatchJob) -> Vec<ScriptFile>;

    fn output(&self, scripts: &Path, name: &str) -> OutputFiles;

    /// Submits the script.
    fn submit(&self, script: &Path) -> CommandLine;

    fn read_submit(&self, answer: &Answer) -> Result<JobId, SubmitError>;

    /// The first question of a poll: the state of every job, by one command.
    fn status(&self, jobs: &[JobId]) -> Step;

    /// Reads the answer to a question into `verdicts`, and returns what else to ask. An error means that the answer
    /// says nothing.
    fn read_status(
        &self,
        step: &Step,
        answer: &Answer,
        verdicts: &mut Verdicts,
    ) -> Result<Vec<Step>, QueryError>;

    /// Asks for the job of this name.
    fn find(&self, name: &str) -> CommandLine;

    fn read_find(&self, name: &str, answer: &Answer) -> Result<Option<JobId>, QueryError>;

    /// Cancels jobs. All of these commands are run; the last one's answer counts.
    fn cancel(&self, jobs: &[JobId]) -> Vec<CommandLine>;

    /// Whether the scheduler took the order. That the jobs have ended is for the next poll to say.
    fn read_cancel(&self, jobs: &[JobId], answer: &Answer) -> Result<(), CancelError>;

    /// Whether jobs that have ended stay in the queue until they are cancelled, too.
    fn keeps_ended(&self) -> bool {
        false
    }
}

/// Reads an answer to a submission, when `id` has found the job's id in the output of a command that succeeded.
pub(super) fn read_submit(
    program: &'static str,
    answer: &Answer,
    id: Option<JobId>,
    later: &[&str],
    lost: &[&str],
) -> Result<JobId, SubmitError> {
    let words = answer.words(program);
    match &answer.outcome {
        Outcome::Exited(0) => id.ok_or_else(|| {
            SubmitError::Unknown(format!("cannot read the job's id from what {program} says: {words}"))
        }),
        // It says that it still tries: there is no job.
        Outcome::TimedOut(_) | Outcome::Killed(_) if answer.says(later) => Err(SubmitError::TryAgain(words)),
        Outcome::TimedOut(_) | Outcome::Killed(_) => Err(SubmitError::Unknown(words)),
        Outcome::NoProgram | Outcome::NotStarted(_) => Err(SubmitError::Refused(words)),
        // What fails without a word may have come far.
        Outcome::Exited(_) if answer.says(lost) || answer.is_silent() => Err(SubmitError::Unknown(words)),
        Outcome::Exited(_) if answer.says(later) => Err(SubmitError::TryAgain(words)),
        Outcome::Exited(_) => Err(SubmitError::Refused(words)),
    }
}

#[cfg(test)]
mod polls;
#[cfg(test)]
mod recordings;
#[cfg(test)]
mod tests;
