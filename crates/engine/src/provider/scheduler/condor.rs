//! HTCondor: `condor_submit`, `condor_q -json` for all jobs at once, `condor_rm`.
//!
//! The submit description leaves jobs in the queue when they have ended, so that how they ended can be asked for. They
//! must be removed then: see [`Scheduler::keeps_ended`].

use std::path::Path;

use serde_json::{Map, Value};

use super::script::{self, NodeSize};
use super::waiting::{Holder, Wait, WaitReason};
use super::{
    Answer, Ask, BatchJob, BatchState, CommandLine, EndCause, Ended, Exit, JobReport, Outcome, OutputFiles,
    READ, Scheduler, ScriptFile, Step, UNCHANGED, Verdict, Verdicts,
};
use crate::config::batch::CondorOptions;
use crate::provider::{CancelError, JobId, QueryError, SubmitError};

pub(crate) struct Condor {
    options: CondorOptions,
    nodes_per_block: u32,
}

const LATER: [&str; 6] = [
    "Can't find address of local schedd",
    "Can't find address for schedd",
    "Failed to connect to",
    "ERROR: Failed to connect",
    "Number of submitted jobs would exceed",
    "MAX_JOBS",
];

/// The description was being sent, or the queue was being committed.
const LOST: [&str; 3] =
    ["Failed to commit job submission", "Failed to end transaction", "Failed to queue job"];

const ATTRIBUTES: &str = "ClusterId,ProcId,JobStatus,HoldReason,HoldReasonCode,ExitCode,ExitBySignal,ExitSignal,\
                          RemoveReason,JobBatchName";

impl Condor {
    pub(crate) fn new(options: CondorOptions, nodes_per_block: u32) -> Self {
        Self { options, nodes_per_block }
    }

    /// All variables in HTCondor's own quotation: marks of both kinds are doubled, in single ones as a whole.
    fn environment(&self, name: &str) -> String {
        let own = [("JOBNAME".to_owned(), name.to_owned())];
        let quoted = |(name, value): (String, String)| {
            format!("{name}='{}'", value.replace('\'', "''").replace('"', "\"\""))
        };
        self.options.environment.iter().cloned().chain(own).map(quoted).collect::<Vec<_>>().join(" ")
    }

    fn description(&self, job: &BatchJob, script: &Path) -> String {
        let options = &self.options;
        let output = self.output(&job.scripts, &job.name);
        let log = job.scripts.join(format!("{}.log", job.name));
        let mut inputs = vec![script.to_string_lossy().into_owned()];
        inputs.extend(job.transferred.iter().map(|path| path.to_string_lossy().into_owned()));
        inputs.extend(options.transfer_input_files.iter().cloned());
        // Without quotation marks it would be the name of an attribute.
        let project = match options.project.as_deref().unwrap_or_default() {
            plain if plain.is_empty() || plain.contains('"') => plain.to_owned(),
            plain => format!("\"{plain}\""),
        };
        let mut text = String::new();
        for (name, value) in [
            ("universe", "vanilla".to_owned()),
            ("should_transfer_files", "YES".to_owned()),
            ("when_to_transfer_output", "ON_EXIT_OR_EVICT".to_owned()),
            ("Transfer_Executable", "false".to_owned()),
            ("transfer_input_files", inputs.join(",")),
            ("machine_count", self.nodes_per_block.to_string()),
            ("output", output.stdout.display().to_string()),
            ("error", output.stderr.display().to_string()),
            ("log", log.display().to_string()),
            ("batch_name", job.name.clone()),
            ("executable", "/bin/bash".to_owned()),
            ("arguments", script.file_name().unwrap_or_default().to_string_lossy().into_owned()),
            ("requirements", options.requirements.clone().unwrap_or_default()),
            ("+projectname", project),
            ("leave_in_queue", "TRUE".to_owned()),
            ("environment", format!("\"{}\"", self.environment(&job.name))),
        ] {
            text.push_str(&format!("{name:<23} = {value}\n"));
        }
        text.push_str(&script::lines(&options.scheduler_options));
        if let Some(memory) = options.mem_per_slot {
            text.push_str(&format!("RequestMemory = {:.0}\n", (memory * 1024.0).ceil()));
        }
        if let Some(cores) = options.cores_per_slot {
            text.push_str(&format!("RequestCpus = {cores}\n"));
        }
        text.push_str("\nqueue\n");
        text
    }
}

/// The jobs of an answer; an empty answer has none.
fn read_list(answer: &Answer) -> Result<Vec<Map<String, Value>>, QueryError> {
    let unread = || answer.unanswered("condor_q");
    if !(answer.succeeded() && answer.complete) {
        return Err(unread());
    }
    if answer.stdout.iter().all(u8::is_ascii_whitespace) {
        // An error that it does not call one.
        return if answer.stderr.iter().all(u8::is_ascii_whitespace) {
            Ok(Vec::new())
        } else {
            Err(unread())
        };
    }
    serde_json::from_slice(&answer.stdout).map_err(|_| unread())
}

fn number(job: &Map<String, Value>, name: &str) -> Option<i64> {
    job.get(name)?.as_i64()
}

fn text<'a>(job: &'a Map<String, Value>, name: &str) -> &'a str {
    job.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn id_of(job: &Map<String, Value>) -> Option<JobId> {
    Some(JobId(format!("{}.{}", number(job, "ClusterId")?, number(job, "ProcId")?)))
}

fn read_state(job: &Map<String, Value>) -> BatchState {
    match number(job, "JobStatus") {
        Some(1) => BatchState::Waiting(Wait::new(WaitReason::NotConsidered, "", None)),
        Some(2) => BatchState::Running,
        Some(3) => {
            let by = text(job, "RemoveReason")
                .split_once("by user ")
                .map(|(_, by)| by.trim_end_matches(')').to_owned());
            BatchState::Ended(Ended::new(EndCause::Cancelled { by }, None, text(job, "RemoveReason")))
        }
        Some(4) => {
            let code = |name: &str| number(job, name).and_then(|code| i32::try_from(code).ok());
            let exit = match job.get("ExitBySignal").and_then(Value::as_bool) {
                Some(true) => code("ExitSignal").map(Exit::Signal),
                _ => code("ExitCode").map(Exit::Status),
            };
            let cause = if exit == Some(Exit::Status(0)) { EndCause::Completed } else { EndCause::Failed };
            BatchState::Ended(Ended::new(cause, exit, ""))
        }
        Some(5) => {
            let reason = match number(job, "HoldReasonCode") {
                Some(1 | 15) => WaitReason::Held(Holder::User),
                Some(3 | 26) => WaitReason::Held(Holder::Administrator),
                Some(6 | 7 | 8 | 12 | 13 | 14) => WaitReason::StartFailed,
                _ => WaitReason::Held(Holder::Unknown),
            };
            BatchState::Waiting(Wait::new(reason, text(job, "HoldReason"), None))
        }
        Some(6) => BatchState::Ending,
        Some(7) => BatchState::Suspended,
        other => {
            BatchState::Unrecognised(other.map_or_else(String::new, |status| format!("JobStatus {status}")))
        }
    }
}

impl Scheduler for Condor {
    fn name(&self) -> &'static str {
        "HTCondor"
    }

    fn programs(&self) -> &'static [&'static str] {
        &["condor_submit", "condor_q", "condor_rm"]
    }

    fn files(&self, job: &BatchJob) -> Vec<ScriptFile> {
        let script = job.scripts.join(format!("{}.script", job.name));
        let size = NodeSize {
            memory_gb: self.options.mem_per_slot.map(|memory| memory.to_string()),
            cores: self.options.cores_per_slot,
        };
        let description = self.description(job, &script);
        vec![
            ScriptFile { text: script::body(job, &size), path: script },
            ScriptFile { path: job.scripts.join(format!("{}.submit", job.name)), text: description },
        ]
    }

    fn output(&self, scripts: &Path, name: &str) -> OutputFiles {
        super::beside(&scripts.join(name))
    }

    fn submit(&self, script: &Path) -> CommandLine {
        CommandLine::new("condor_submit", [script.to_string_lossy()], UNCHANGED)
    }

    /// `1 job(s) submitted to cluster 5.`
    fn read_submit(&self, answer: &Answer) -> Result<JobId, SubmitError> {
        let output = answer.stdout();
        let id = output.lines().find_map(|line| {
            let (count, cluster) = line.trim().split_once(" job(s) submitted to cluster ")?;
            let cluster = cluster.trim_end_matches('.');
            let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            (digits(count) && digits(cluster) && cluster.len() <= 20).then(|| JobId(format!("{cluster}.0")))
        });
        super::read_submit("condor_submit", answer, id, &LATER, &LOST)
    }

    fn status(&self, jobs: &[JobId]) -> Step {
        let ids = jobs.iter().map(|job| job.0.as_str());
        let command = CommandLine::new("condor_q", ids.chain(["-json", "-attributes", ATTRIBUTES]), READ);
        Step { ask: Ask::States, command, jobs: jobs.to_vec() }
    }

    fn read_status(
        &self,
        step: &Step,
        answer: &Answer,
        verdicts: &mut Verdicts,
    ) -> Result<Vec<Step>, QueryError> {
        let list = read_list(answer)?;
        let mut reports: std::collections::HashMap<_, _> = list
            .iter()
            .filter_map(|job| {
                let name = Some(text(job, "JobBatchName").to_owned()).filter(|name| !name.is_empty());
                Some((id_of(job)?, JobReport { state: read_state(job), name }))
            })
            .collect();
        for job in &step.jobs {
            let verdict = reports.remove(job).map_or(Verdict::Absent(None), Verdict::Known);
            verdicts.insert(job.clone(), verdict);
        }
        Ok(Vec::new())
    }

    fn find(&self, name: &str) -> CommandLine {
        let constraint = format!("JobBatchName == \"{name}\"");
        CommandLine::new("condor_q", ["-constraint", &constraint, "-json", "-attributes", ATTRIBUTES], READ)
    }

    fn read_find(&self, _: &str, answer: &Answer) -> Result<Option<JobId>, QueryError> {
        Ok(read_list(answer)?.iter().find_map(id_of))
    }

    /// The second takes from the queue what the first has marked.
    fn cancel(&self, jobs: &[JobId]) -> Vec<CommandLine> {
        let ids = || jobs.iter().map(|job| job.0.as_str());
        vec![
            CommandLine::new("condor_rm", ids(), READ),
            CommandLine::new("condor_rm", ["-forcex"].into_iter().chain(ids()), READ),
        ]
    }

    fn read_cancel(&self, jobs: &[JobId], answer: &Answer) -> Result<(), CancelError> {
        let (output, errors) = (answer.stdout(), answer.stderr());
        let taken = |job: &&JobId| {
            output.lines().chain(errors.lines()).any(|line| {
                let of_this = line.split_whitespace().any(|word| word.trim_end_matches(['.', ',']) == job.0);
                of_this
                    && ["marked for removal", "removed locally", "not found", "already"]
                        .iter()
                        .any(|it| line.contains(it))
            })
        };
        let left: Vec<_> = jobs.iter().filter(|job| !taken(job)).cloned().collect();
        if left.is_empty() && matches!(answer.outcome, Outcome::Exited(_)) {
            return Ok(());
        }
        Err(CancelError { jobs: left, reason: answer.words("condor_rm") })
    }

    fn keeps_ended(&self) -> bool {
        true
    }
}
