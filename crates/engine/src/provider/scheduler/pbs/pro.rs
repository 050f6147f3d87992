//! PBS Pro: `qsub`, `qstat -x -f -F json` for all jobs at once, `qdel`.
//!
//! Without job history, the default of servers, `qstat -x` knows no job at all and says so; the jobs are then asked for
//! without `-x`. A job that is missing has ended only when `qstat` denies it by name: one version prints but the first
//! of several.

use std::path::Path;

use super as pbs;
use super::json::{self, PbsJob};
use crate::config::batch::PbsProOptions;
use crate::provider::scheduler::script::{self, NodeSize};
use crate::provider::scheduler::{
    self, Answer, Ask, BatchJob, CommandLine, EndCause, Ended, OutputFiles, READ, Scheduler, ScriptFile,
    Step, Verdicts,
};
use crate::provider::{CancelError, JobId, QueryError, SubmitError};

pub(crate) struct PbsPro {
    options: PbsProOptions,
    nodes_per_block: u32,
}

const NO_HISTORY: &str = "PBS is not configured to maintain job history";

impl PbsPro {
    pub(crate) fn new(options: PbsProOptions, nodes_per_block: u32) -> Self {
        Self { options, nodes_per_block }
    }
}

fn qstat(ask: Ask, history: bool, jobs: Vec<JobId>) -> Step {
    let words = history.then_some("-x").into_iter().chain(["-f", "-F", "json"]).map(str::to_owned);
    let command = CommandLine::new("qstat", words.chain(jobs.iter().map(|job| job.0.clone())), READ);
    Step { ask, jobs, command }
}

fn missing(jobs: &[JobId], verdicts: &Verdicts) -> Vec<JobId> {
    jobs.iter().filter(|job| !verdicts.contains_key(*job)).cloned().collect()
}

/// `Exit_status` of a job that was killed for its walltime, since version 22.05.
const KILLED_WALLTIME: i64 = -29;
/// The same for its memory.
const KILLED_MEMORY: i64 = -27;
/// The job was aborted because its first node had started anew, or was lost.
const LOST_NODE: [i64; 3] = [-4, -5, -6];
/// The substate of a job that was deleted.
const DELETED: i64 = 91;

fn read_end(job: &PbsJob) -> Ended {
    let comment = job.comment.as_deref().unwrap_or_default();
    let over = |resource: &str| comment.contains(&format!("exceeded resource {resource}"));
    let cause = match job.exit_status {
        Some(KILLED_WALLTIME) => EndCause::TimedOut,
        Some(KILLED_MEMORY) => EndCause::OutOfMemory,
        _ if over("walltime") => EndCause::TimedOut,
        _ if over("mem") || over("vmem") => EndCause::OutOfMemory,
        _ if job.substate == Some(DELETED) => EndCause::Cancelled { by: pbs::terminated_by(comment) },
        Some(status) if LOST_NODE.contains(&status) => EndCause::NodeFailed,
        Some(status) => pbs::cause_of(status),
        // It never ran: a dependency that can't be met.
        None => EndCause::NeverRan,
    };
    Ended::new(cause, job.exit_status.and_then(pbs::exit), comment)
}

impl Scheduler for PbsPro {
    fn name(&self) -> &'static str {
        "PBS"
    }

    fn programs(&self) -> &'static [&'static str] {
        &["qsub", "qstat", "qdel", "qselect"]
    }

    fn files(&self, job: &BatchJob) -> Vec<ScriptFile> {
        let options = &self.options;
        let output = self.output(&job.scripts, &job.name);
        let select = options.select_options.as_deref().unwrap_or_default();
        let colon = if select.is_empty() || select.starts_with(':') { "" } else { ":" };
        let text = format!(
            "#!/bin/bash\n\n#PBS -S /bin/bash\n#PBS -N {}\n#PBS -m n\n#PBS -l walltime={}\n\
             #PBS -l select={}:ncpus={}{colon}{select}\n#PBS -o {}\n#PBS -e {}\n{}\n{}",
            job.name,
            options.walltime.hours(),
            self.nodes_per_block,
            options.cpus_per_node,
            script::word(&output.stdout.to_string_lossy()),
            script::word(&output.stderr.to_string_lossy()),
            script::lines(&options.scheduler_options),
            script::body(job, &NodeSize::default()),
        );
        vec![ScriptFile { path: job.scripts.join(&job.name), text }]
    }

    fn output(&self, scripts: &Path, name: &str) -> OutputFiles {
        scheduler::beside(&scripts.join(name))
    }

    fn submit(&self, script: &Path) -> CommandLine {
        qsub(self.options.queue.as_deref(), self.options.account.as_deref(), script)
    }

    fn read_submit(&self, answer: &Answer) -> Result<JobId, SubmitError> {
        scheduler::read_submit("qsub", answer, pbs::read_id(&answer.stdout()), &pbs::LATER, &pbs::LOST)
    }

    fn status(&self, jobs: &[JobId]) -> Step {
        qstat(Ask::States, true, jobs.to_vec())
    }

    fn read_status(
        &self,
        step: &Step,
        answer: &Answer,
        verdicts: &mut Verdicts,
    ) -> Result<Vec<Step>, QueryError> {
        let found = json::read(&answer.stdout).filter(|_| !pbs::is_away(answer));
        let Some(found) = found else { return Err(answer.unanswered("qstat")) };
        let errors = answer.stderr();
        pbs::record(&step.jobs, &found, &errors, read_end, verdicts);
        let left = missing(&step.jobs, verdicts);
        if left.is_empty() || step.ask != Ask::States {
            return Ok(Vec::new());
        }
        if errors.contains(NO_HISTORY) {
            return Ok(vec![qstat(Ask::StatesAgain, false, left)]);
        }
        if left.len() == step.jobs.len() && !answer.succeeded() {
            return Err(answer.unanswered("qstat"));
        }
        Ok(left.into_iter().map(|job| qstat(Ask::StatesAgain, true, vec![job])).collect())
    }

    fn find(&self, name: &str) -> CommandLine {
        CommandLine::new("qselect", ["-N", name], READ)
    }

    fn read_find(&self, _: &str, answer: &Answer) -> Result<Option<JobId>, QueryError> {
        if answer.succeeded() {
            Ok(pbs::read_id(&answer.stdout()))
        } else {
            Err(answer.unanswered("qselect"))
        }
    }

    fn cancel(&self, jobs: &[JobId]) -> Vec<CommandLine> {
        vec![CommandLine::new("qdel", jobs.iter().map(|job| job.0.as_str()), READ)]
    }

    fn read_cancel(&self, jobs: &[JobId], answer: &Answer) -> Result<(), CancelError> {
        pbs::read_cancel(jobs, answer)
    }
}

/// `qsub -q QUEUE -A ACCOUNT SCRIPT`
pub(super) fn qsub(queue: Option<&str>, account: Option<&str>, script: &Path) -> CommandLine {
    let queue = queue.into_iter().flat_map(|queue| ["-q", queue]);
    let account = account.into_iter().flat_map(|account| ["-A", account]);
    let script = script.to_string_lossy();
    CommandLine::new("qsub", queue.chain(account).chain([&*script]), pbs::SUBMIT)
}
