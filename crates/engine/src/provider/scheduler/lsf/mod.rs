//! LSF: `bsub`, `bjobs -o` for all jobs at once, `bkill`.
//!
//! Written from LSF's manual: no LSF runs in our tests. Where a release lacks a field of `bjobs -o`, the states are asked
//! for alone. `bsub` does not fail while the master is away, it waits: its time limit ends that.

mod words;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::script::{self, NodeSize};
use super::{
    Answer, Ask, BatchJob, CommandLine, Environment, JobReport, Outcome, OutputFiles, Scheduler, ScriptFile,
    Step, Verdict, Verdicts,
};
use crate::config::batch::{LsfOptions, LsfRequest};
use crate::provider::{CancelError, JobId, QueryError, SubmitError};

pub(crate) struct Lsf {
    options: LsfOptions,
    nodes_per_block: u32,
}

/// Such variables of the user change what is printed.
const READ: Environment = Environment {
    set: &[("LC_ALL", "C"), ("LANGUAGE", "C")],
    remove: &["LSB_BJOBS_FORMAT", "LSB_DISPLAY_YEAR"],
};
/// It would name the job, or make the submission wait.
const SUBMIT: Environment = Environment { set: &[], remove: &["LSB_JOB_NAME", "LSB_BSUB_WAIT"] };

/// There is no job, and there may be one later.
const LATER: [&str; 6] = [
    "LSF is down",
    "Pending job threshold reached",
    "pending job limit reached",
    "Job limit exceeded",
    "LSF is not ready",
    "Too many jobs",
];

/// There may be a job. The daemon was asked, and its answer did not come.
const LOST: [&str; 3] = ["Communication time out", "Failed in receiving", "Failed in an LSF library call"];

/// Fields that every release with `-o` has, and those that came later.
const FIELDS: &str =
    "jobid stat exit_code exit_reason pend_reason estimated_start_time job_name delimiter='|'";
const FEW_FIELDS: &str = "jobid stat exit_code delimiter='|'";

impl Lsf {
    pub(crate) fn new(options: LsfOptions, nodes_per_block: u32) -> Self {
        Self { options, nodes_per_block }
    }
}

fn bjobs(ask: Ask, fields: &str, jobs: &[JobId]) -> Step {
    let words = ["-noheader", "-o", fields].into_iter().chain(jobs.iter().map(|job| job.0.as_str()));
    Step { ask, command: CommandLine::new("bjobs", words, READ), jobs: jobs.to_vec() }
}

/// The job in `Job <12> is not found`.
fn denied(line: &str) -> Option<&str> {
    let (id, rest) = line.trim().strip_prefix("Job <")?.split_once('>')?;
    let over = ["is not found", "No matching job found", "Job has already finished"];
    over.iter().any(|words| rest.contains(words)).then_some(id)
}

impl Scheduler for Lsf {
    fn name(&self) -> &'static str {
        "LSF"
    }

    fn programs(&self) -> &'static [&'static str] {
        &["bsub", "bjobs", "bkill"]
    }

    fn files(&self, job: &BatchJob) -> Vec<ScriptFile> {
        let options = &self.options;
        let output = self.output(&job.scripts, &job.name);
        let mut text = format!(
            "#!/bin/bash\n\n#BSUB -W {}\n#BSUB -J {}\n#BSUB -o {}\n#BSUB -e {}\n{}",
            options.walltime.whole_minutes(),
            job.name,
            script::word(&output.stdout.to_string_lossy()),
            script::word(&output.stderr.to_string_lossy()),
            script::lines(&options.scheduler_options),
        );
        for (option, value) in [("P", &options.project), ("q", &options.queue)] {
            if let Some(value) = value {
                text.push_str(&format!("#BSUB -{option} {}\n", script::word(value)));
            }
        }
        text.push_str(&match options.request {
            LsfRequest::Nodes => format!("#BSUB -nnodes {}\n", self.nodes_per_block),
            LsfRequest::Cores { per_block, per_node } => {
                format!("#BSUB -n {per_block}\n#BSUB -R \"span[ptile={per_node}]\"\n")
            }
        });
        let body = script::body(job, &NodeSize::default());
        vec![ScriptFile {
            path: job.scripts.join(format!("{}.submit", job.name)),
            text: format!("{text}\n{body}"),
        }]
    }

    fn output(&self, scripts: &Path, name: &str) -> OutputFiles {
        super::beside(&scripts.join(format!("{name}.submit")))
    }

    fn submit(&self, script: &Path) -> CommandLine {
        let words = if self.options.bsub_redirection { None } else { Some(script.to_string_lossy()) };
        let stdin = self.options.bsub_redirection.then(|| script.to_owned());
        CommandLine { stdin, ..CommandLine::new("bsub", words, SUBMIT) }
    }

    /// `Job <12> is submitted to queue <normal>.`
    fn read_submit(&self, answer: &Answer) -> Result<JobId, SubmitError> {
        let text = answer.stdout();
        let id = text.lines().find_map(|line| {
            let lower = line.to_lowercase();
            let is_it = lower.starts_with("job") && lower.contains("is submitted to");
            let id = line.split_whitespace().nth(1).filter(|_| is_it)?.trim_matches(['<', '>']);
            (!id.is_empty() && id.len() <= 20 && id.bytes().all(|byte| byte.is_ascii_digit()))
                .then(|| JobId(id.to_owned()))
        });
        super::read_submit("bsub", answer, id, &LATER, &LOST)
    }

    fn status(&self, jobs: &[JobId]) -> Step {
        bjobs(Ask::States, FIELDS, jobs)
    }

    fn read_status(
        &self,
        step: &Step,
        answer: &Answer,
        verdicts: &mut Verdicts,
    ) -> Result<Vec<Step>, QueryError> {
        if !matches!(answer.outcome, Outcome::Exited(_)) {
            return Err(answer.unanswered("bjobs"));
        }
        let (text, errors) = (answer.stdout(), answer.stderr());
        let mut found = HashMap::new();
        for line in text.lines() {
            let fields: Vec<&str> = line.splitn(7, '|').map(str::trim).collect();
            if let [id, state, exit, rest @ ..] = fields.as_slice() {
                let (reason, pending, start) = match rest {
                    [reason, pending, start, ..] => (*reason, *pending, *start),
                    _ => ("", "", ""),
                };
                let state = words::state(state, exit, reason, pending, start);
                found.insert(*id, JobReport { state, name: rest.get(3).map(|name| (*name).to_owned()) });
            }
        }
        let denied: HashSet<&str> = errors.lines().chain(text.lines()).filter_map(denied).collect();
        let mut any = false;
        for job in &step.jobs {
            let verdict = match found.remove(job.0.as_str()) {
                Some(report) => Verdict::Known(report),
                None if denied.contains(job.0.as_str()) => Verdict::Absent(None),
                None => continue,
            };
            any = true;
            verdicts.insert(job.clone(), verdict);
        }
        if any {
            return Ok(Vec::new());
        }
        if step.ask == Ask::States && errors.contains("field") {
            return Ok(vec![bjobs(Ask::StatesAgain, FEW_FIELDS, &step.jobs)]);
        }
        Err(answer.unanswered("bjobs"))
    }

    fn find(&self, name: &str) -> CommandLine {
        CommandLine::new("bjobs", ["-noheader", "-a", "-J", name, "-o", "jobid"], READ)
    }

    fn read_find(&self, name: &str, answer: &Answer) -> Result<Option<JobId>, QueryError> {
        let text = answer.stdout();
        let id = text
            .lines()
            .map(str::trim)
            .find(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()));
        let none = answer.stderr().lines().any(|line| denied(line) == Some(name));
        match id {
            Some(id) if matches!(answer.outcome, Outcome::Exited(_)) => Ok(Some(JobId(id.to_owned()))),
            _ if none || answer.succeeded() => Ok(None),
            _ => Err(answer.unanswered("bjobs")),
        }
    }

    fn cancel(&self, jobs: &[JobId]) -> Vec<CommandLine> {
        vec![CommandLine::new("bkill", jobs.iter().map(|job| job.0.as_str()), READ)]
    }

    fn read_cancel(&self, jobs: &[JobId], answer: &Answer) -> Result<(), CancelError> {
        if answer.succeeded() {
            return Ok(());
        }
        let (text, errors) = (answer.stdout(), answer.stderr());
        let over = |job: &&JobId| {
            let mut lines = errors.lines().chain(text.lines());
            let being = format!("Job <{}> is being terminated", job.0);
            lines.any(|line| line.contains(&being) || denied(line) == Some(job.0.as_str()))
        };
        let left: Vec<_> = jobs.iter().filter(|job| !over(job)).cloned().collect();
        if left.is_empty() { Ok(()) } else { Err(CancelError { jobs: left, reason: answer.words("bkill") }) }
    }
}
