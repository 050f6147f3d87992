//! Grid Engine's words: its list of jobs in XML, the letters of a state, the record of an ended job.

use crate::provider::scheduler::{BatchState, EndCause, Ended, Exit};
use crate::provider::scheduler::{Holder, Wait, WaitReason};

/// A job of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) name: String,
    /// Letters: `qw`, `hqw`, `Eqw`, `dr`.
    pub(super) state: String,
}

/// Reads the list that `qstat -xml` prints, if it is one from its beginning to its end.
pub(super) fn read_list(text: &str) -> Option<Vec<Entry>> {
    let whole = text.contains("<job_info") && text.trim_end().ends_with("</job_info>");
    let mut entries = Vec::new();
    for part in text.split("<job_list").skip(1) {
        let part = part.split_once("</job_list>").map_or(part, |(part, _)| part);
        // The attribute of the list is called `state`, too.
        let part = part.split_once('>').map_or("", |(_, rest)| rest);
        if let (Some(id), Some(state)) = (element(part, "JB_job_number"), element(part, "state")) {
            let name = element(part, "JB_name").unwrap_or_default();
            entries.push(Entry { id: id.trim().to_owned(), name, state: state.trim().to_owned() });
        }
    }
    whole.then_some(entries)
}

fn element(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (value, _) = rest.split_once(&format!("</{name}>"))?;
    let decoded = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    Some(decoded.iter().fold(value.to_owned(), |value, (from, to)| value.replace(from, to)))
}

/// Reads a state. Each letter says something of its own.
pub(super) fn state(entry: &Entry) -> BatchState {
    let letters = entry.state.as_str();
    let has = |letter| letters.contains(letter);
    let waiting = |reason| BatchState::Waiting(Wait::new(reason, letters, None));
    if letters.is_empty() || !letters.bytes().all(|letter| b"rtqwhEsSTNPRdzx".contains(&letter)) {
        return BatchState::Unrecognised(letters.chars().take(16).collect());
    }
    if has('d') {
        BatchState::Ending
    } else if has('E') {
        waiting(WaitReason::StartFailed)
    } else if has('h') {
        waiting(WaitReason::Held(Holder::Unknown))
    } else if has('q') || has('w') {
        waiting(if has('R') { WaitReason::NotBefore } else { WaitReason::NotConsidered })
    } else if has('s') || has('S') || has('T') || has('N') || has('P') {
        BatchState::Suspended
    } else if has('r') || has('t') {
        BatchState::Running
    } else {
        BatchState::Unrecognised(letters.to_owned())
    }
}

/// As a shell says it.
const SIGNALLED: i32 = 128;
const LAST_SIGNAL: i32 = 64;

/// How the job ended, from what `qacct -j` prints: the last of its records, since a job that was
/// rescheduled has several. A record of a job that goes on is none.
pub(super) fn read_accounting(id: &str, text: &str) -> Option<Ended> {
    let record = text.split("=====").filter(|record| record.contains("jobnumber")).last()?;
    let value = |name: &str| {
        let line = record.lines().find(|line| line.split_whitespace().next() == Some(name))?;
        Some(line.trim_start().strip_prefix(name)?.trim())
    };
    if value("jobnumber")? != id {
        return None;
    }
    let number = |text: &str| text.split_whitespace().next()?.parse::<i32>().ok();
    let (failed, status) = (value("failed")?, value("exit_status").and_then(number)?);
    let exit = match status {
        status if (SIGNALLED + 1..=SIGNALLED + LAST_SIGNAL).contains(&status) => {
            Exit::Signal(status - SIGNALLED)
        }
        status => Exit::Status(status),
    };
    let cause = match number(failed)? {
        0 if status == 0 => EndCause::Completed,
        0 => EndCause::Failed,
        // It runs again, or waits in its error state.
        24 | 25 | 30 => return None,
        37 => EndCause::TimedOut,
        18..=23 | 31 => EndCause::NodeFailed,
        // The master does not tell a deletion from a kill.
        _ => EndCause::Failed,
    };
    let said = failed.split_once(':').map_or("", |(_, words)| words.trim());
    Some(Ended::new(cause, Some(exit), said))
}
