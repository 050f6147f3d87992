//! Slurm: `sbatch`, `squeue` for all jobs at once, `sacct` or `scontrol` for how a job ended, `scancel`.
//!
//! The job id of a cluster that was named is `id;cluster`, as `sbatch --parsable` writes it: the same number on another
//! cluster is another job, which must never be cancelled for ours. `squeue` names the clusters that it has reached, if it
//! prints headers, and passes over the others in silence, with success: a job is absent only where its cluster is named.
//! In a federation one job has the same number on its clusters. Where another has started it, it is `REVOKED`, which is
//! never the end of it: a sibling on a cluster that can't be reached is left out in silence, too.

mod list;
mod words;

use std::collections::BTreeMap;
use std::path::Path;

use self::list::{List, REVOKED, Row};

use super::script::{self, NodeSize};
use super::{
    Answer, Ask, BatchJob, BatchState, CommandLine, Environment, JobReport, Outcome, OutputFiles, Scheduler,
    ScriptFile, Step, Verdict, Verdicts,
};
use crate::config::batch::SlurmOptions;
use crate::provider::{CancelError, JobId, QueryError, SubmitError};

pub(crate) struct Slurm {
    options: SlurmOptions,
    nodes_per_block: u32,
}

/// Users set such variables for their own calls. These would hide jobs from ours, ask questions, or rename a job.
const READ: Environment = Environment {
    set: &[("LC_ALL", "C"), ("LANGUAGE", "C"), ("SLURM_TIME_FORMAT", "standard")],
    remove: &["SQUEUE_*", "SACCT_*", "SCANCEL_*", "SLURM_BITSTR_LEN"],
};
const SUBMIT: Environment = Environment {
    set: &[],
    remove: &[
        "SBATCH_JOB_NAME",
        "SBATCH_ARRAY_INX",
        "SBATCH_WAIT",
        "SBATCH_OUTPUT",
        "SBATCH_ERROR",
        "SBATCH_INPUT",
        "SBATCH_QUIET",
    ],
};

/// There is no job, and there may be one later.
const LATER: [&str; 9] = [
    "Unable to contact slurm controller",
    "temporarily unable to accept job",
    "Slurm backup controller in standby mode",
    "Problem talking to database",
    "can't be reached now",
    "MaxSubmit",
    "Slurm controller is in the process of starting",
    "Job/step creation temporarily disabled",
    "(connect failure)",
];

/// There may be a job.
const LOST: [&str; 5] = [
    "Socket timed out",
    "Zero Bytes were transmitted or received",
    "Unexpected message received",
    "Message receive failure",
    "Transport endpoint is not connected",
];

/// A name that is wrong, and not a cluster that is away.
const NO_CLUSTER: &str = "known by database";

const SQUEUE_FORMAT: &str = "--format=%i|%T|%r|%S|%j";
const SACCT_FORMAT: &str = "--format=JobID,State,ExitCode,Cluster,JobName";

impl Slurm {
    pub(crate) fn new(options: SlurmOptions, nodes_per_block: u32) -> Self {
        Self { options, nodes_per_block }
    }

    /// `--clusters=`, for the clusters of these jobs and those that are configured.
    fn clusters(&self, jobs: &[JobId]) -> Option<String> {
        let mut names: Vec<&str> = self
            .options
            .clusters
            .iter()
            .flat_map(|names| names.split(','))
            .filter(|name| !name.is_empty())
            .collect();
        names.extend(jobs.iter().filter_map(|job| cluster_of(job)));
        names.sort_unstable();
        names.dedup();
        (!names.is_empty()).then(|| format!("--clusters={}", names.join(",")))
    }

    fn read(&self, program: &'static str, words: Vec<String>, jobs: &[JobId]) -> CommandLine {
        CommandLine::new(program, words.into_iter().chain(self.clusters(jobs)), READ)
    }

    fn sacct(&self, jobs: Vec<JobId>) -> Step {
        let words = ["-X", "--noheader", "--parsable2", SACCT_FORMAT].map(str::to_owned).to_vec();
        let words = words.into_iter().chain([format!("--jobs={}", numbers(&jobs))]).collect();
        Step { ask: Ask::Endings, command: self.read("sacct", words, &jobs), jobs }
    }

    /// The states of jobs, in the form that tells clusters apart where there are several.
    fn squeue(&self, which: String, jobs: &[JobId]) -> CommandLine {
        let clusters = self.clusters(jobs);
        let header = if clusters.is_none() { Some("--noheader".to_owned()) } else { None };
        let words = ["--states=all".to_owned(), SQUEUE_FORMAT.to_owned(), which];
        CommandLine::new("squeue", header.into_iter().chain(words).chain(clusters), READ)
    }

    fn read_squeue(
        &self,
        step: &Step,
        answer: &Answer,
        verdicts: &mut Verdicts,
    ) -> Result<Vec<Step>, QueryError> {
        // It complains so of one job, not of several; of each cluster, so that another complaint may stand beside it.
        let errors = answer.stderr();
        let mut complaints = errors.lines().filter(|line| !line.trim().is_empty()).peekable();
        let none = answer.outcome == Outcome::Exited(1)
            && complaints.peek().is_some()
            && complaints.all(|line| line.contains("Invalid job id specified"));
        if !answer.complete || !(answer.succeeded() || none) {
            return Err(answer.unanswered("squeue"));
        }
        let text = answer.stdout();
        let list = list::read(&text);
        let (mut ended, mut revoked) = (Vec::new(), Vec::new());
        for job in &step.jobs {
            let rows = list.rows.get(number_of(job)).map_or(&[][..], Vec::as_slice);
            // All siblings are one job, so that any of them tells its state.
            let of = cluster_of(job).filter(|_| step.ask == Ask::States);
            let verdict = match list::choose(of, rows) {
                Some(row) if row.state == REVOKED => {
                    revoked.push(job.clone());
                    continue;
                }
                Some(row) => Verdict::Known(JobReport {
                    state: words::state(row.state, row.reason, row.start),
                    name: Some(row.name.to_owned()),
                }),
                None if step.ask == Ask::States && self.was_asked(job, &list) => Verdict::Absent(None),
                None => continue,
            };
            if !matches!(&verdict, Verdict::Known(report) if !matches!(report.state, BatchState::Ended(_))) {
                ended.push(job.clone());
            }
            verdicts.insert(job.clone(), verdict);
        }
        let siblings = (step.ask == Ask::States && !revoked.is_empty()).then(|| siblings(revoked));
        let endings = (!ended.is_empty()).then(|| self.sacct(ended));
        Ok(siblings.into_iter().chain(endings).collect())
    }

    /// Whether the clusters that could have this job are among those that the list is of.
    fn was_asked(&self, job: &JobId, list: &List<'_>) -> bool {
        match (cluster_of(job), self.options.clusters.as_deref()) {
            (Some(cluster), _) => list.clusters.contains(&cluster),
            (None, Some(all)) => all.split(',').all(|cluster| list.clusters.contains(&cluster)),
            (None, None) => true,
        }
    }

    /// Without accounting, the controller tells how the jobs ended that it still knows.
    fn read_sacct(&self, step: &Step, answer: &Answer, verdicts: &mut Verdicts) -> Vec<Step> {
        if !answer.succeeded() {
            let known = step.jobs.iter().filter(|job| matches!(verdicts.get(*job), Some(Verdict::Known(_))));
            let ask = |job: &JobId| {
                let words = ["--oneliner", "show", "job", number_of(job)].map(str::to_owned).to_vec();
                let jobs = vec![job.clone()];
                Step { ask: Ask::EndingsAgain, command: self.read("scontrol", words, &jobs), jobs }
            };
            return known.map(ask).collect();
        }
        for line in answer.stdout().lines() {
            let fields: Vec<&str> = line.splitn(5, '|').collect();
            let [id, state, exit, cluster, _] = fields[..] else { continue };
            let of_this = |job: &&JobId| number_of(job) == id.trim();
            let there = |job: &&JobId| cluster_of(job) == Some(cluster.trim());
            let anywhere = |job: &&JobId| cluster_of(job).is_none();
            let mut same = step.jobs.iter().filter(of_this);
            let Some(job) = same.clone().find(there).or_else(|| same.find(anywhere)) else { continue };
            // What accounting believes to run has been lost by the controller, which answers first.
            let BatchState::Ended(mut ended) = words::state(state, "", "") else { continue };
            ended.exit = words::exit(exit, &ended.cause);
            match verdicts.get_mut(job) {
                Some(Verdict::Known(JobReport { state: BatchState::Ended(known), .. })) => {
                    if known.cause == ended.cause {
                        ended.words.clone_from(&known.words);
                    }
                    *known = ended;
                }
                Some(Verdict::Absent(how)) => *how = Some(ended),
                _ => {}
            }
        }
        Vec::new()
    }

    fn read_scontrol(&self, step: &Step, answer: &Answer, verdicts: &mut Verdicts) {
        let text = answer.stdout();
        let value = |key: &str| Some(text.split_once(key)?.1.split_whitespace().next().unwrap_or_default());
        let [job] = step.jobs.as_slice() else { return };
        let Some(Verdict::Known(JobReport { state: BatchState::Ended(ended), .. })) = verdicts.get_mut(job)
        else {
            return;
        };
        // The name comes first, and could hold anything.
        if answer.succeeded() && value("JobId=") == Some(number_of(job)) {
            ended.exit = value(" ExitCode=").and_then(|text| words::exit(text, &ended.cause));
        }
    }
}

/// What a federated job is called on a cluster that only helped to start it.
const NO_NUMBER: &str = "4294967294";

/// Asks for the siblings of jobs on all clusters of the federation.
fn siblings(jobs: Vec<JobId>) -> Step {
    let words = ["--sibling", "--noheader", "--states=all", SQUEUE_FORMAT].map(str::to_owned);
    let which = format!("--jobs={}", numbers(&jobs));
    let command = CommandLine::new("squeue", words.into_iter().chain([which]), READ);
    Step { ask: Ask::StatesAgain, command, jobs }
}

fn number_of(job: &JobId) -> &str {
    job.0.split_once(';').map_or(job.0.as_str(), |(number, _)| number)
}

fn cluster_of(job: &JobId) -> Option<&str> {
    job.0.split_once(';').map(|(_, cluster)| cluster)
}

fn numbers(jobs: &[JobId]) -> String {
    jobs.iter().map(number_of).collect::<Vec<_>>().join(",")
}

impl Scheduler for Slurm {
    fn name(&self) -> &'static str {
        "Slurm"
    }

    fn programs(&self) -> &'static [&'static str] {
        &["sbatch", "squeue", "scancel"]
    }

    fn files(&self, job: &BatchJob) -> Vec<ScriptFile> {
        let options = &self.options;
        let path = job.scripts.join(&job.name);
        let output = self.output(&job.scripts, &job.name);
        // A percent sign begins a pattern in Slurm's names of files.
        let file = |path: &Path| script::word(&path.to_string_lossy().replace('%', "%%"));
        let mut text = format!(
            "#!/bin/bash\n\n#SBATCH --job-name={}\n#SBATCH --output={}\n#SBATCH --error={}\n#SBATCH --nodes={}\n\
             #SBATCH --time={}\n#SBATCH --ntasks-per-node=1\n{}",
            job.name,
            file(&output.stdout),
            file(&output.stderr),
            self.nodes_per_block,
            options.walltime.whole_minutes(),
            script::lines(&options.scheduler_options),
        );
        if options.exclusive {
            text.push_str("#SBATCH --exclusive\n");
        }
        let number = |number: Option<u32>| number.map(|number| number.to_string());
        for (option, value) in [
            ("partition", options.partition.clone()),
            ("account", options.account.clone()),
            ("qos", options.qos.clone()),
            ("constraint", options.constraint.clone()),
            ("clusters", options.clusters.clone()),
            ("gpus-per-node", number(options.gpus_per_node)),
            ("gres", options.gres.clone()),
            ("mem", options.mem_per_node.map(|memory| format!("{memory}g"))),
            ("cpus-per-task", number(options.cores_per_node)),
        ] {
            if let Some(value) = value {
                text.push_str(&format!("#SBATCH --{option}={}\n", script::word(&value)));
            }
        }
        let memory_gb = number(options.mem_per_node);
        let body = script::body(job, &NodeSize { memory_gb, cores: options.cores_per_node });
        vec![ScriptFile { path, text: format!("{text}\n{body}") }]
    }

    fn output(&self, scripts: &Path, name: &str) -> OutputFiles {
        super::beside(&scripts.join(name))
    }

    fn submit(&self, script: &Path) -> CommandLine {
        CommandLine::new("sbatch", [script.to_string_lossy()], SUBMIT)
    }

    fn read_submit(&self, answer: &Answer) -> Result<JobId, SubmitError> {
        let text = answer.stdout();
        let id = text.lines().find_map(|line| {
            let mut words = line.strip_prefix(self.options.before_job_id.as_str())?.split_whitespace();
            let number = words.next()?;
            let is_id = number.len() <= 20 && number.starts_with(|c: char| c.is_ascii_digit());
            // `Submitted batch job 5 on cluster c1`
            let cluster = if words.next() == Some("on") && words.next() == Some("cluster") {
                words.next()
            } else {
                None
            };
            is_id.then(|| {
                JobId(cluster.map_or_else(|| number.to_owned(), |cluster| format!("{number};{cluster}")))
            })
        });
        let later = if answer.says(&[NO_CLUSTER]) { &[][..] } else { &LATER[..] };
        super::read_submit("sbatch", answer, id, later, &LOST)
    }

    fn status(&self, jobs: &[JobId]) -> Step {
        let command = self.squeue(format!("--jobs={}", numbers(jobs)), jobs);
        Step { ask: Ask::States, command, jobs: jobs.to_vec() }
    }

    fn read_status(
        &self,
        step: &Step,
        answer: &Answer,
        verdicts: &mut Verdicts,
    ) -> Result<Vec<Step>, QueryError> {
        match step.ask {
            Ask::States | Ask::StatesAgain => self.read_squeue(step, answer, verdicts),
            Ask::Endings => Ok(self.read_sacct(step, answer, verdicts)),
            Ask::EndingsAgain => {
                self.read_scontrol(step, answer, verdicts);
                Ok(Vec::new())
            }
        }
    }

    fn find(&self, name: &str) -> CommandLine {
        self.squeue(format!("--name={name}"), &[])
    }

    fn read_find(&self, name: &str, answer: &Answer) -> Result<Option<JobId>, QueryError> {
        if !(answer.succeeded() && answer.complete) {
            return Err(answer.unanswered("squeue"));
        }
        let text = answer.stdout();
        let list = list::read(&text);
        let ours = |row: &&Row<'_>| row.name == name && row.id != NO_NUMBER;
        let mut rows: Vec<_> = list.rows.values().flatten().filter(ours).collect();
        // One that lives, before one that another cluster has started, before one that has ended.
        rows.sort_by_key(|row| match words::state(row.state, row.reason, row.start) {
            BatchState::Ended(_) => 2,
            _ if row.state == REVOKED => 1,
            _ => 0,
        });
        let id = |row: &&Row<'_>| match row.cluster {
            Some(cluster) => JobId(format!("{};{cluster}", row.id)),
            None => JobId(row.id.to_owned()),
        };
        match rows.first() {
            Some(row) => Ok(Some(id(row))),
            None if self.was_asked(&JobId(String::new()), &list) => Ok(None),
            None => Err(QueryError("squeue could not reach every cluster".to_owned())),
        }
    }

    fn cancel(&self, jobs: &[JobId]) -> Vec<CommandLine> {
        let mut by_cluster: BTreeMap<Option<&str>, Vec<String>> = BTreeMap::new();
        for job in jobs {
            by_cluster.entry(cluster_of(job)).or_default().push(number_of(job).to_owned());
        }
        let command = |(cluster, ids): (Option<&str>, Vec<String>)| {
            let all = self.options.clusters.as_deref().filter(|_| cluster.is_none());
            let clusters = cluster.or(all).map(|names| format!("--clusters={names}"));
            CommandLine::new("scancel", clusters.into_iter().chain(ids), READ)
        };
        by_cluster.into_iter().map(command).collect()
    }

    fn read_cancel(&self, jobs: &[JobId], answer: &Answer) -> Result<(), CancelError> {
        const OVER: [&str; 2] = ["already completing or completed", "Invalid job id specified"];
        let errors = answer.stderr();
        let over = errors
            .lines()
            .filter(|line| line.contains("error"))
            .all(|line| OVER.iter().any(|words| line.contains(words)));
        if answer.succeeded() || (matches!(answer.outcome, Outcome::Exited(_)) && over && !errors.is_empty())
        {
            return Ok(());
        }
        Err(CancelError { jobs: jobs.to_vec(), reason: answer.words("scancel") })
    }
}
