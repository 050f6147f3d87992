//! Replays what real schedulers have printed (`tests/vectors`): a file holds a command, its output, its errors and its
//! exit status, as bytes. Beside each directory is a file with what we read in each of them.
//!
//! After a change of what is read, or a new recording, write these files anew and look at the difference:
//! `FARCALL_WRITE_READINGS=1 cargo nextest run --workspace -E 'test(recordings)'`.

use std::path::PathBuf;

use serde_json::json;

use super::poll::Poll;
use super::{
    Answer, Ask, BatchState, CommandLine, EndCause, Ended, Exit, JobReport, Outcome, Scheduler, Step,
    Verdict, Verdicts,
};
use crate::config::batch::BatchOptions;
use crate::provider::{JobId, SubmitError};

fn directory() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors"))
}

/// A recorded command and its answer.
pub(super) struct Recording {
    pub(super) command: String,
    pub(super) answer: Answer,
}

/// Reads a recording: `slurm-22.05.8/squeue-many`.
pub(super) fn read(name: &str) -> Recording {
    let path = directory().join(format!("{name}.txt"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let find = |from: usize, words: &[u8]| {
        (from..bytes.len())
            .rev()
            .find(|at| bytes[*at..].starts_with(words))
            .unwrap_or_else(|| panic!("{name}"))
    };
    let first = bytes.iter().position(|byte| *byte == b'\n').unwrap();
    let errors = find(first, b"--- stderr\n");
    let exit = find(errors, b"--- exit ");
    let status = std::str::from_utf8(&bytes[exit + 9..]).unwrap().trim().parse().unwrap();
    Recording {
        command: String::from_utf8_lossy(&bytes[2..first]).into_owned(),
        answer: Answer {
            outcome: Outcome::Exited(status),
            stdout: bytes[first + 1..errors].to_vec(),
            stderr: bytes[errors + 11..exit].to_vec(),
            complete: true,
        },
    }
}

pub(super) fn answer(name: &str) -> Answer {
    read(name).answer
}

/// All recordings of a directory.
fn names(directory_name: &str) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory().join(directory_name))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".txt").map(str::to_owned))
        .collect();
    names.sort();
    names
}

pub(super) fn said(status: i32, stdout: &str, stderr: &str) -> Answer {
    Answer { outcome: Outcome::Exited(status), stdout: stdout.into(), stderr: stderr.into(), complete: true }
}

pub(super) fn ids(jobs: &[&str]) -> Vec<JobId> {
    jobs.iter().map(|id| JobId((*id).to_owned())).collect()
}

/// Polls with these answers in turn. When they are used up, all questions that follow fail.
pub(super) fn poll(
    scheduler: &dyn Scheduler,
    jobs: &[&str],
    answers: Vec<Answer>,
) -> Result<Verdicts, String> {
    let mut poll = Poll::new(scheduler, &ids(jobs));
    let mut answers = answers.into_iter();
    while poll.command().is_some() {
        let answer = answers.next().unwrap_or_else(|| said(1, "", "no answer is left"));
        poll.answer(&answer).map_err(|error| error.to_string())?;
    }
    Ok(poll.finish())
}

/// What is known of each job, for a table: `7 ended Failed status 3: FAILED`, `7 absent`, or `7 ?` for nothing.
pub(super) fn table(jobs: &[&str], verdicts: &Verdicts) -> Vec<String> {
    let line = |id: &&str| match verdicts.get(&JobId((*id).to_owned())) {
        Some(Verdict::Known(report)) => format!("{id} {}", show(&report.state)),
        Some(Verdict::Absent(None)) => format!("{id} absent"),
        Some(Verdict::Absent(Some(ended))) => {
            format!("{id} absent, {}", show(&BatchState::Ended(ended.clone())))
        }
        None => format!("{id} ?"),
    };
    jobs.iter().map(line).collect()
}

fn show(state: &BatchState) -> String {
    match state {
        BatchState::Waiting(wait) => {
            let expected = wait.expected.iter().map(|start| format!(" at {} {}", start.date, start.time));
            format!("waiting {:?}{}: {}", wait.reason, expected.collect::<String>(), wait.words)
        }
        BatchState::Ended(ended) => {
            let exit = match ended.exit {
                Some(Exit::Status(status)) => format!(" status {status}"),
                Some(Exit::Signal(signal)) => format!(" signal {signal}"),
                None => String::new(),
            };
            format!("ended {:?}{exit}: {}", ended.cause, ended.words)
        }
        other => format!("{other:?}").to_lowercase(),
    }
}

/// A submission's answer, for a table: the id, or what to do and the words.
pub(super) fn submission(scheduler: &dyn Scheduler, answer: &Answer) -> String {
    match scheduler.read_submit(answer) {
        Ok(id) => id.0,
        Err(SubmitError::Refused(words)) => format!("refused: {words}"),
        Err(SubmitError::TryAgain(words)) => format!("again: {words}"),
        Err(SubmitError::Unknown(words)) => format!("unknown: {words}"),
    }
}

/// The scheduler that a provider of this name and these options has.
pub(super) fn scheduler(class: &str, options: serde_json::Value) -> Box<dyn Scheduler> {
    let options = BatchOptions::read(class, options.as_object().unwrap().clone()).unwrap().unwrap();
    super::build(&options)
}

/// The words of a recorded command, from its program on; quotes are those of a shell.
fn words(command: &str) -> Vec<String> {
    let plain = command.replace(['\'', '"'], "");
    let words = plain.split_whitespace().map(str::to_owned);
    words.skip_while(|word| word.contains("PBS_DEFAULT=") || word == "timeout" || word == "70").collect()
}

/// The ids among the words of a command.
fn asked(words: &[String]) -> Vec<String> {
    let list = words.iter().find_map(|word| word.strip_prefix("--jobs="));
    let is_id = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
    match list {
        Some(list) => list.split(',').map(str::to_owned).collect(),
        None => words[1..].iter().map(String::as_str).filter(is_id).map(str::to_owned).collect(),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What we read in a recording, line by line; nothing for commands that we don't run.
fn reading(scheduler: &dyn Scheduler, recording: &Recording, also: &[&str]) -> Vec<String> {
    let words = words(&recording.command);
    let answer = &recording.answer;
    let mut jobs = asked(&words);
    let any = |part: &str| words.iter().any(|word| word.contains(part));
    let lines = match words[0].as_str() {
        "sbatch" | "qsub" | "bsub" | "condor_submit" => vec![submission(scheduler, answer)],
        "scancel" | "qdel" | "bkill" | "condor_rm" => {
            let jobs: Vec<_> = jobs.iter().map(String::as_str).collect();
            vec![match scheduler.read_cancel(&ids(&jobs), answer) {
                Ok(()) => "taken".to_owned(),
                Err(error) => {
                    let left: Vec<_> = error.jobs.iter().map(|job| job.0.as_str()).collect();
                    format!("not taken for {}: {}", left.join(" "), error.reason)
                }
            }]
        }
        "squeue" | "bjobs" if any("--name=") || any("-J") => {
            let name = words.iter().find_map(|word| word.strip_prefix("--name=")).unwrap_or("NAME");
            vec![format!("{:?}", scheduler.read_find(name, answer))]
        }
        "condor_q" if any("JobBatchName ==") || any("-constraint") => {
            vec![format!("{:?}", scheduler.read_find("", answer))]
        }
        "qselect" => vec![format!("{:?}", scheduler.read_find("", answer))],
        "sacct" | "scontrol" | "qacct" => {
            jobs.extend(also.iter().filter(|id| id.contains(';')).map(|id| (*id).to_owned()));
            follow_up(scheduler, &words[0], &jobs, answer)
        }
        "squeue" | "condor_q" | "bjobs" | "qstat" => {
            jobs.extend(also.iter().map(|id| (*id).to_owned()));
            let columns = words[0] == "qstat" && !any("-f") && !any("-xml");
            let ask = if columns || any("--sibling") { Ask::StatesAgain } else { Ask::States };
            first_answer(scheduler, ask, &jobs, answer)
        }
        _ => Vec::new(),
    };
    lines.iter().map(|line| one_line(line)).collect()
}

/// The first answer of a poll, and what is asked next.
fn first_answer(scheduler: &dyn Scheduler, ask: Ask, jobs: &[String], answer: &Answer) -> Vec<String> {
    let jobs: Vec<&str> = jobs.iter().map(String::as_str).collect();
    let step = Step { ask, ..scheduler.status(&ids(&jobs)) };
    let mut verdicts = Verdicts::new();
    match scheduler.read_status(&step, answer, &mut verdicts) {
        Err(error) => vec![format!("unanswered: {error}")],
        Ok(more) => {
            let mut lines = table(&jobs, &verdicts);
            lines.extend(more.iter().map(|step| format!("then {}", line(&step.command))));
            lines
        }
    }
}

fn follow_up(scheduler: &dyn Scheduler, program: &str, jobs: &[String], answer: &Answer) -> Vec<String> {
    let jobs: Vec<&str> = jobs.iter().map(String::as_str).collect();
    let failed =
        BatchState::Ended(Ended { cause: EndCause::Failed, exit: None, words: "AS BEFORE".to_owned() });
    let known = match program {
        "qacct" => Verdict::Absent(None),
        _ => Verdict::Known(JobReport { state: failed, name: None }),
    };
    let mut verdicts: Verdicts = ids(&jobs).into_iter().map(|job| (job, known.clone())).collect();
    let ask = if program == "scontrol" { Ask::EndingsAgain } else { Ask::Endings };
    let command = scheduler.status(&ids(&jobs)).command;
    let step = Step { ask, jobs: ids(&jobs), command };
    match scheduler.read_status(&step, answer, &mut verdicts) {
        Err(error) => vec![format!("unanswered: {error}")],
        Ok(more) => {
            let mut lines = table(&jobs, &verdicts);
            lines.extend(more.iter().map(|step| format!("then {}", line(&step.command))));
            lines
        }
    }
}

fn line(command: &CommandLine) -> String {
    let words = std::iter::once(command.program).chain(command.arguments.iter().map(String::as_str));
    words.collect::<Vec<_>>().join(" ")
}

/// Compares what we read in all recordings of a directory with the file beside it.
fn check(directory_name: &str, class: &str, options: serde_json::Value, also: &[&str]) {
    let scheduler = scheduler(class, options);
    let mut text = String::new();
    for name in names(directory_name) {
        let lines = reading(&*scheduler, &read(&format!("{directory_name}/{name}")), also);
        if !lines.is_empty() {
            text.push_str(&format!("== {name}\n{}\n", lines.join("\n")));
        }
    }
    let path = directory().join(format!("{directory_name}.read"));
    if std::env::var_os("FARCALL_WRITE_READINGS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    for (read, expected) in text.lines().zip(expected.lines()) {
        assert_eq!(read, expected, "{directory_name}");
    }
    assert_eq!(text.lines().count(), expected.lines().count(), "{directory_name}");
}

#[test]
fn slurm() {
    check("slurm-22.05.8", "SlurmProvider", json!({}), &[]);
    check("slurm-24.11.5", "SlurmProvider", json!({}), &[]);
    check("slurm-22.05.8-federation", "SlurmProvider", json!({}), &[]);
    let also = ["1;test", "4;other", "65;test", "65;other", "2;other", "56;test"];
    check("slurm-22.05.8-clusters", "SlurmProvider", json!({"clusters": "other,test"}), &also);
}

#[test]
fn openpbs() {
    check("openpbs-23.06.06", "PBSProProvider", json!({}), &[]);
}

#[test]
fn grid_engine() {
    let also = ["1", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "99999"];
    check("gridengine-8.1.9", "GridEngineProvider", json!({}), &also);
}

#[test]
fn htcondor() {
    check("htcondor-23.9.6", "CondorProvider", json!({}), &[]);
}

/// Their forms are those of the manuals.
#[test]
fn lsf_and_torque() {
    check("lsf-manual", "LSFProvider", json!({}), &[]);
    check("torque-manual", "TorqueProvider", json!({}), &[]);
    check("torque-over-slurm-24.11.5", "TorqueProvider", json!({}), &[]);
}
