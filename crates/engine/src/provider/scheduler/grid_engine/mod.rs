//! Grid Engine: `qsub`, `qstat -xml` for all jobs at once, `qacct` for how one has ended, `qdel`.
//!
//! `qstat` lists jobs that wait or run, and nothing else: what is missing in a complete list has ended. `qacct` knows
//! about it a little later, one job a call.

mod words;

use std::path::Path;

use self::words::Entry;
use super::script::{self, NodeSize};
use super::{
    Answer, Ask, BatchJob, CommandLine, JobReport, Outcome, OutputFiles, READ, Scheduler, ScriptFile, Step,
    UNCHANGED, Verdict, Verdicts,
};
use crate::config::batch::GridEngineOptions;
use crate::provider::{CancelError, JobId, QueryError, SubmitError};

pub(crate) struct GridEngine {
    options: GridEngineOptions,
}

const LATER: [&str; 5] = [
    "unable to send message to qmaster",
    "commlib error",
    "unable to contact qmaster",
    "only allows",
    "job rejected: too many",
];

/// The request had reached the master when its answer was lost.
const LOST: [&str; 2] = ["failed receiving gdi request", "got read error"];

/// All jobs of this user that wait, run or are suspended. It is said in full: a file `.sge_qstat` of the user's may say
/// otherwise, and what it hides would seem to have ended.
const QSTAT: [&str; 5] = ["-xml", "-s", "prs", "-u", "$user"];

/// Grid Engine runs a job again that ends with status 99, and holds one that ends with 100.
const NO_RESCHEDULE: &str = "trap 'STATUS=$?; case $STATUS in 99|100) exit 1;; esac' EXIT";

impl GridEngine {
    pub(crate) fn new(options: GridEngineOptions) -> Self {
        Self { options }
    }
}

fn read_list(answer: &Answer) -> Result<Vec<Entry>, QueryError> {
    let whole = answer.succeeded() && answer.complete;
    words::read_list(&answer.stdout()).filter(|_| whole).ok_or_else(|| answer.unanswered("qstat"))
}

impl Scheduler for GridEngine {
    fn name(&self) -> &'static str {
        "Grid Engine"
    }

    fn programs(&self) -> &'static [&'static str] {
        &["qsub", "qstat", "qdel"]
    }

    fn files(&self, job: &BatchJob) -> Vec<ScriptFile> {
        let output = self.output(&job.scripts, &job.name);
        let text = format!(
            "#!/bin/bash\n#$ -S /bin/bash\n#$ -N {}\n#$ -o {}\n#$ -e {}\n#$ -cwd\n#$ -l h_rt={}\n{}\n{NO_RESCHEDULE}\n{}",
            job.name,
            script::word(&output.stdout.to_string_lossy()),
            script::word(&output.stderr.to_string_lossy()),
            self.options.walltime.hours(),
            script::lines(&self.options.scheduler_options),
            script::body(job, &NodeSize::default()),
        );
        vec![ScriptFile { path: job.scripts.join(format!("{}.submit", job.name)), text }]
    }

    fn output(&self, scripts: &Path, name: &str) -> OutputFiles {
        super::beside(&scripts.join(format!("{name}.submit")))
    }

    fn submit(&self, script: &Path) -> CommandLine {
        let queue = self.options.queue.as_deref().into_iter().flat_map(|queue| ["-q", queue]);
        let script = script.to_string_lossy();
        CommandLine::new("qsub", queue.chain(["-terse", &*script]), UNCHANGED)
    }

    fn read_submit(&self, answer: &Answer) -> Result<JobId, SubmitError> {
        let text = answer.stdout();
        let is_id = |line: &&str| {
            !line.is_empty() && line.len() <= 20 && line.bytes().all(|byte| byte.is_ascii_digit())
        };
        let id = text.lines().map(str::trim).find(is_id).map(|id| JobId(id.to_owned()));
        super::read_submit("qsub", answer, id, &LATER, &LOST)
    }

    fn status(&self, jobs: &[JobId]) -> Step {
        Step { ask: Ask::States, command: CommandLine::new("qstat", QSTAT, READ), jobs: jobs.to_vec() }
    }

    fn read_status(
        &self,
        step: &Step,
        answer: &Answer,
        verdicts: &mut Verdicts,
    ) -> Result<Vec<Step>, QueryError> {
        if step.ask != Ask::States {
            let [job] = step.jobs.as_slice() else { return Ok(Vec::new()) };
            if let Some(how) = words::read_accounting(&job.0, &answer.stdout())
                && let Some(verdict @ Verdict::Absent(None)) = verdicts.get_mut(job)
            {
                *verdict = Verdict::Absent(Some(how));
            }
            return Ok(Vec::new());
        }
        let mut list = std::collections::HashMap::new();
        for entry in read_list(answer)? {
            list.entry(entry.id.clone()).or_insert(entry);
        }
        let mut more = Vec::new();
        for job in &step.jobs {
            let verdict = match list.remove(&job.0) {
                Some(entry) => {
                    Verdict::Known(JobReport { state: words::state(&entry), name: Some(entry.name) })
                }
                None => {
                    let command = CommandLine::new("qacct", ["-j", &job.0], READ);
                    more.push(Step { ask: Ask::Endings, command, jobs: vec![job.clone()] });
                    Verdict::Absent(None)
                }
            };
            verdicts.insert(job.clone(), verdict);
        }
        Ok(more)
    }

    fn find(&self, _: &str) -> CommandLine {
        CommandLine::new("qstat", QSTAT, READ)
    }

    fn read_find(&self, name: &str, answer: &Answer) -> Result<Option<JobId>, QueryError> {
        let entry = read_list(answer)?.into_iter().find(|entry| entry.name == name);
        Ok(entry.map(|entry| JobId(entry.id)))
    }

    fn cancel(&self, jobs: &[JobId]) -> Vec<CommandLine> {
        vec![CommandLine::new("qdel", jobs.iter().map(|job| job.0.as_str()), READ)]
    }

    fn read_cancel(&self, jobs: &[JobId], answer: &Answer) -> Result<(), CancelError> {
        let text = answer.stdout();
        let taken = |job: &&JobId| {
            let denied = format!("\"{}\" does not exist", job.0);
            let (deleted, registered) = (format!("deleted job {}", job.0), format!("the job {} for", job.0));
            text.lines()
                .map(str::trim_end)
                .any(|line| line.contains(&denied) || line.ends_with(&deleted) || line.contains(&registered))
        };
        let left: Vec<_> = jobs.iter().filter(|job| !taken(job)).cloned().collect();
        let asked = matches!(answer.outcome, Outcome::Exited(_));
        if answer.succeeded() || (asked && left.is_empty()) {
            return Ok(());
        }
        Err(CancelError { jobs: left, reason: answer.words("qdel") })
    }
}
