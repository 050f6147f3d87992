//! Reads `qstat -f -F json`, also where it is no JSON.
//!
//! The released PBS (23.06.06 and before) escapes neither backslashes nor control characters, and prints numbers like
//! `.5`, `nan` and `+5`: one variable of one job then spoils the document of all jobs. But it prints each member on a
//! line of its own, with the depth as its indentation, so that the jobs can be read line by line. Only the members that
//! are needed are read.

use serde_json::{Map, Value};

/// What is needed of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PbsJob {
    pub(super) state: Option<String>,
    pub(super) name: Option<String>,
    pub(super) comment: Option<String>,
    pub(super) exit_status: Option<i64>,
    pub(super) substate: Option<i64>,
    pub(super) hold_types: Option<String>,
    pub(super) execution_time: Option<String>,
    pub(super) estimated_start: Option<String>,
}

/// The jobs of the answer, by their ids; none if it is no answer of `qstat`.
pub(super) fn read(output: &[u8]) -> Option<Vec<(String, PbsJob)>> {
    match serde_json::from_slice::<Value>(output) {
        Ok(Value::Object(document)) => Some(read_document(&document)),
        _ => read_lines(&String::from_utf8_lossy(output)),
    }
}

fn read_document(document: &Map<String, Value>) -> Vec<(String, PbsJob)> {
    let Some(Value::Object(jobs)) = document.get("Jobs") else { return Vec::new() };
    let read = |(id, job): (&String, &Value)| Some((id.clone(), read_members(job.as_object()?)));
    jobs.iter().filter_map(read).collect()
}

fn read_members(members: &Map<String, Value>) -> PbsJob {
    // A name or comment that looks like a number is printed as one.
    let text = |name: &str| {
        members.get(name).filter(|value| !value.is_null()).map(|value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    };
    let number = |name: &str| members.get(name).and_then(Value::as_i64);
    let start = members.get("estimated").and_then(|estimated| estimated.get("start_time")?.as_str());
    PbsJob {
        state: text("job_state"),
        name: text("Job_Name"),
        comment: text("comment"),
        exit_status: number("Exit_status"),
        substate: number("substate"),
        hold_types: text("Hold_Types"),
        execution_time: text("Execution_Time"),
        estimated_start: start.map(str::to_owned),
    }
}

fn read_lines(text: &str) -> Option<Vec<(String, PbsJob)>> {
    // The member `Jobs` tells the width of one level.
    let jobs = |line: &&str| line.trim_start().starts_with("\"Jobs\":");
    let Some(width) = text.lines().find(jobs).map(indentation).filter(|width| *width > 0) else {
        return text.contains("\"pbs_version\"").then(Vec::new);
    };
    let mut found: Vec<(String, PbsJob)> = Vec::new();
    let mut estimated = false;
    for line in text.lines().skip_while(|line| !jobs(line)).skip(1) {
        let depth = indentation(line);
        let Some((name, value)) = split_member(line) else { continue };
        if depth == 2 * width && value == "{" {
            found.push((name.to_owned(), PbsJob::default()));
        }
        let Some((_, job)) = found.last_mut() else { continue };
        if depth == 3 * width {
            estimated = name == "estimated";
            set(job, name, value);
        } else if depth == 4 * width && estimated && name == "start_time" {
            job.estimated_start = Some(unquote(value));
        }
    }
    Some(found)
}

fn indentation(line: &str) -> usize {
    line.bytes().take_while(|byte| matches!(byte, b' ' | b'\t')).count()
}

/// Splits `"name":value,`.
fn split_member(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.trim_start_matches([' ', '\t']).strip_prefix('"')?.split_once("\":")?;
    let value = value.trim_matches([' ', '\t', '\r']);
    Some((name, value.strip_suffix(',').unwrap_or(value)))
}

fn set(job: &mut PbsJob, name: &str, value: &str) {
    let text = || Some(unquote(value));
    match name {
        "job_state" => job.state = text(),
        "Job_Name" => job.name = text(),
        "comment" => job.comment = text(),
        "Exit_status" => job.exit_status = value.parse().ok(),
        "substate" => job.substate = value.parse().ok(),
        "Hold_Types" => job.hold_types = text(),
        "Execution_Time" => job.execution_time = text(),
        _ => {}
    }
}

/// The text between the outer quotation marks; what is escaped inside, and what isn't, both as it was meant.
fn unquote(value: &str) -> String {
    let inner = value.strip_prefix('"').map_or(value, |rest| rest.strip_suffix('"').unwrap_or(rest));
    inner.replace("\\\"", "\"").replace("\\n", "\n")
}
