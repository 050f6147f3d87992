//! Torque: `qsub`, `qstat -f` for all jobs at once, `qdel`.
//!
//! Written from Torque's manual: no Torque runs in our tests. Slurm's commands of the same names stand in for it; their
//! `qstat -f` breaks off at a running job, so that jobs it leaves out are asked for by `qstat` alone, whose columns have
//! the states and nothing else. Those commands deny a job in silence, and only one that was asked for alone.

use std::path::Path;

use super as pbs;
use super::json::PbsJob;
use super::pro::qsub;
use crate::config::batch::TorqueOptions;
use crate::provider::scheduler::script::{self, NodeSize};
use crate::provider::scheduler::{
    self, Answer, Ask, BatchJob, CommandLine, EndCause, Ended, Outcome, OutputFiles, READ, Scheduler,
    ScriptFile, Step, Verdict, Verdicts,
};
use crate::provider::{CancelError, JobId, QueryError, SubmitError};

pub(crate) struct Torque {
    options: TorqueOptions,
    nodes_per_block: u32,
}

impl Torque {
    pub(crate) fn new(options: TorqueOptions, nodes_per_block: u32) -> Self {
        Self { options, nodes_per_block }
    }
}

/// `exit_status` of a job that was killed for its memory, and for its walltime.
const KILLED_MEMORY: i64 = -10;
const KILLED_WALLTIME: i64 = -11;
/// The job was aborted because its first node had started anew.
const LOST_NODE: [i64; 3] = [-4, -5, -6];
/// A signal 15, which is what `qdel` sends.
const DELETED: i64 = 256 + 15;

fn read_end(job: &PbsJob) -> Ended {
    let comment = job.comment.as_deref().unwrap_or_default();
    let cause = match job.exit_status {
        Some(KILLED_WALLTIME) => EndCause::TimedOut,
        Some(KILLED_MEMORY) => EndCause::OutOfMemory,
        Some(DELETED) => EndCause::Cancelled { by: pbs::terminated_by(comment) },
        Some(status) if LOST_NODE.contains(&status) => EndCause::NodeFailed,
        Some(status) => pbs::cause_of(status),
        // Columns have neither names nor statuses.
        None if job.name.is_none() => EndCause::Completed,
        // It was deleted before it ran.
        None => EndCause::Cancelled { by: None },
    };
    Ended::new(cause, job.exit_status.and_then(pbs::exit), comment)
}

/// Reads `Job Id: 12.server`, then `    name = value`, where a long value goes on after a tab.
fn read_jobs(text: &str) -> Vec<(String, PbsJob)> {
    let mut jobs: Vec<(String, PbsJob)> = Vec::new();
    let mut comment_goes_on = false;
    for line in text.lines() {
        if let Some(id) = line.strip_prefix("Job Id:") {
            jobs.push((id.trim().to_owned(), PbsJob::default()));
            comment_goes_on = false;
            continue;
        }
        let Some((_, job)) = jobs.last_mut() else { continue };
        if let Some(rest) = line.strip_prefix('\t') {
            if let Some(comment) = job.comment.as_mut().filter(|_| comment_goes_on) {
                comment.push_str(rest);
            }
            continue;
        }
        let Some((name, value)) = line.split_once(" = ") else { continue };
        let text = || Some(value.to_owned());
        comment_goes_on = name.trim() == "comment";
        match name.trim() {
            "job_state" => job.state = Some(value.trim().to_owned()),
            "Job_Name" => job.name = text(),
            "comment" => job.comment = text(),
            "exit_status" => job.exit_status = value.trim().parse().ok(),
            "Hold_Types" => job.hold_types = text(),
            "Execution_Time" => job.execution_time = text(),
            _ => {}
        }
    }
    jobs
}

/// Reads the columns of `qstat` alone: id, name, user, time, state, queue.
fn read_columns(text: &str) -> Vec<(String, PbsJob)> {
    let read = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [id, _, _, _, state, _, ..] = columns.as_slice() else { return None };
        let job = PbsJob { state: Some((*state).to_owned()), ..PbsJob::default() };
        id.starts_with(|c: char| c.is_ascii_digit()).then(|| ((*id).to_owned(), job))
    };
    text.lines().filter_map(read).collect()
}

fn qstat(ask: Ask, options: &[&str], jobs: &[JobId]) -> Step {
    let words = options.iter().copied().chain(jobs.iter().map(|job| job.0.as_str()));
    Step { ask, command: CommandLine::new("qstat", words, READ), jobs: jobs.to_vec() }
}

/// The status of `qstat` for a job that it doesn't know.
const UNKNOWN: i32 = 153;

impl Scheduler for Torque {
    fn name(&self) -> &'static str {
        "Torque"
    }

    fn programs(&self) -> &'static [&'static str] {
        &["qsub", "qstat", "qdel", "qselect"]
    }

    fn files(&self, job: &BatchJob) -> Vec<ScriptFile> {
        let options = &self.options;
        let output = self.output(&job.scripts, &job.name);
        let text = format!(
            "#!/bin/bash\n\n{}#PBS -S /bin/bash\n#PBS -N {}\n#PBS -m n\n#PBS -l walltime={}\n\
             #PBS -l nodes={}:ppn=1\n#PBS -o {}\n#PBS -e {}\n\n{}",
            script::lines(&options.scheduler_options),
            job.name,
            options.walltime.hours(),
            self.nodes_per_block,
            script::word(&output.stdout.to_string_lossy()),
            script::word(&output.stderr.to_string_lossy()),
            script::body(job, &NodeSize::default()),
        );
        vec![ScriptFile { path: job.scripts.join(format!("{}.submit", job.name)), text }]
    }

    fn output(&self, scripts: &Path, name: &str) -> OutputFiles {
        scheduler::beside(&scripts.join(format!("{name}.submit")))
    }

    fn submit(&self, script: &Path) -> CommandLine {
        qsub(self.options.queue.as_deref(), self.options.account.as_deref(), script)
    }

    fn read_submit(&self, answer: &Answer) -> Result<JobId, SubmitError> {
        scheduler::read_submit("qsub", answer, pbs::read_id(&answer.stdout()), &pbs::LATER, &pbs::LOST)
    }

    fn status(&self, jobs: &[JobId]) -> Step {
        qstat(Ask::States, &["-f"], jobs)
    }

    fn read_status(
        &self,
        step: &Step,
        answer: &Answer,
        verdicts: &mut Verdicts,
    ) -> Result<Vec<Step>, QueryError> {
        let unknown = answer.succeeded() || answer.outcome == Outcome::Exited(UNKNOWN);
        if pbs::is_unreached(answer) || (answer.is_silent() && !unknown) {
            return Err(answer.unanswered("qstat"));
        }
        let output = answer.stdout();
        let found = if step.ask == Ask::States { read_jobs(&output) } else { read_columns(&output) };
        pbs::record(&step.jobs, &found, &answer.stderr(), read_end, verdicts);
        let left: Vec<JobId> = step.jobs.iter().filter(|job| !verdicts.contains_key(*job)).cloned().collect();
        match left.as_slice() {
            [] => Ok(Vec::new()),
            left if step.ask == Ask::States => Ok(vec![qstat(Ask::StatesAgain, &[], left)]),
            [job] if step.jobs.len() == 1 => {
                if answer.outcome == Outcome::Exited(UNKNOWN) {
                    verdicts.insert(job.clone(), Verdict::Absent(None));
                }
                Ok(Vec::new())
            }
            left if unknown => {
                Ok(left.iter().map(|job| qstat(Ask::StatesAgain, &[], std::slice::from_ref(job))).collect())
            }
            _ => Ok(Vec::new()),
        }
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
