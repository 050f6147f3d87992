//! What PBS Pro and Torque share: ids, states, and the words for waiting and ending.

mod json;
pub(super) mod pro;
pub(super) mod torque;

use std::collections::{HashMap, HashSet};

use self::json::PbsJob;
use super::waiting::{Expected, Holder, Wait, WaitReason};
use super::{Answer, BatchState, EndCause, Ended, Environment, Exit, JobReport, Outcome, Verdict, Verdicts};
use crate::provider::{CancelError, JobId};

/// For submissions: the variable changes what is a directive.
const SUBMIT: Environment = Environment { set: &[], remove: &["PBS_DPREFIX"] };

/// The server was not reached.
const CONNECTION: [&str; 3] =
    ["cannot connect to server", "Couldn't connect to cluster", "Cannot connect to specified server host"];

/// There is no job, and there may be one later.
const LATER: [&str; 7] = [
    CONNECTION[0],
    CONNECTION[1],
    CONNECTION[2],
    "per-user limit",
    "already in queue",
    "already in complex",
    "Maximum number of jobs already",
];

/// There may be a job.
const LOST: [&str; 5] =
    ["End of File", "Protocol (ASN.1) error", "Premature end of message", "Connection reset", "System error"];

/// Exit codes of a server that can't be reached, whatever the words.
const AWAY: [i32; 2] = [162, 255];

/// The id in what `qsub` prints: its last line.
fn read_id(output: &str) -> Option<JobId> {
    let line = output.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    let is_id = line.len() <= 256 && line.starts_with(|c: char| c.is_ascii_digit()) && !line.contains(' ');
    is_id.then(|| JobId(line.to_owned()))
}

/// The parts of `12.server`: the number, and the server, which may be missing.
fn split(id: &str) -> (&str, &str) {
    id.split_once('.').unwrap_or((id, ""))
}

/// Whether two ids are of one job: the server's name may be short in one and long in the other, or missing.
fn is_same(one: &str, other: &str) -> bool {
    let ((a, server), (b, other)) = (split(one), split(other));
    a == b && (server.starts_with(other) || other.starts_with(server))
}

/// Records the jobs that the answer describes, and those that it denies on its error output.
fn record(
    jobs: &[JobId],
    found: &[(String, PbsJob)],
    errors: &str,
    ended: fn(&PbsJob) -> Ended,
    verdicts: &mut Verdicts,
) {
    let mut described: HashMap<&str, Vec<&(String, PbsJob)>> = HashMap::new();
    for job in found.iter().filter(|(_, job)| job.state.is_some()) {
        described.entry(split(&job.0).0).or_default().push(job);
    }
    let denied: HashSet<&str> = errors.lines().filter_map(denied).map(|id| split(id).0).collect();
    for job in jobs {
        let number = split(&job.0).0;
        let same = |(id, _): &&&(String, PbsJob)| is_same(id, &job.0);
        let verdict = match described.get(number).and_then(|jobs| jobs.iter().find(same)) {
            Some((_, described)) => {
                Verdict::Known(JobReport { state: state(described, ended), name: described.name.clone() })
            }
            None if denied.contains(number) => Verdict::Absent(None),
            None => continue,
        };
        verdicts.insert(job.clone(), verdict);
    }
}

/// The job that a line says there is no more: `qstat: Unknown Job Id 999.pbs`, `qstat: 4.pbs Job has finished, use -x`,
/// `qdel: Job has finished 4.pbs`.
fn denied(line: &str) -> Option<&str> {
    let after = ["Unknown Job Id Error ", "Unknown Job Id ", "Job has finished "]
        .iter()
        .find_map(|words| Some(line.split_once(words)?.1));
    // Torque's word for a job that has ended.
    let complete = line.split_once("job - COMPLETE ").map(|(_, id)| id);
    let id = match after.or(complete).map(str::trim) {
        Some(id) if id.starts_with(|c: char| c.is_ascii_digit()) => id,
        _ => line.split_once(" Job has finished")?.0.split_whitespace().next_back()?,
    };
    (!id.contains(' ')).then_some(id)
}

fn state(job: &PbsJob, ended: fn(&PbsJob) -> Ended) -> BatchState {
    let comment = job.comment.as_deref().unwrap_or_default();
    match job.state.as_deref().unwrap_or_default() {
        "Q" | "T" => {
            let expected = job.estimated_start.as_deref().and_then(Expected::from_ctime);
            let words = comment.strip_prefix("Not Running: ").unwrap_or(comment);
            BatchState::Waiting(Wait::new(queue_reason(comment), words, expected))
        }
        "W" => {
            let expected = job.execution_time.as_deref().and_then(Expected::from_ctime);
            BatchState::Waiting(Wait::new(WaitReason::NotBefore, comment, expected))
        }
        "H" => {
            let holder = match job.hold_types.as_deref().unwrap_or_default() {
                _ if comment.contains("too many failed attempts") => WaitReason::StartFailed,
                types if types.contains(['s', 'o']) => WaitReason::Held(Holder::Administrator),
                types if types.contains('u') => WaitReason::Held(Holder::User),
                _ => WaitReason::Held(Holder::Unknown),
            };
            BatchState::Waiting(Wait::new(holder, comment, None))
        }
        "R" | "B" => BatchState::Running,
        "S" | "U" => BatchState::Suspended,
        "E" => BatchState::Ending,
        "F" | "C" | "X" => BatchState::Ended(ended(job)),
        other => BatchState::Unrecognised(other.chars().take(16).collect()),
    }
}

fn queue_reason(comment: &str) -> WaitReason {
    let has = |words: &[&str]| words.iter().any(|word| comment.contains(word));
    match comment {
        "" => WaitReason::NotConsidered,
        _ if comment.starts_with("Can Never Run") => WaitReason::Never,
        _ if has(&["Queue not started", "Queue not of", "queue is not"]) => WaitReason::QueueStopped,
        _ if has(&["top job", "fairshare", "not the highest priority"]) => WaitReason::Priority,
        _ if has(&["Insufficient amount", "Not enough", "not available"]) => WaitReason::Resources,
        _ if has(&["limit", "Limit"]) => WaitReason::Limit,
        _ if has(&["reservation"]) => WaitReason::Reservation,
        _ if has(&["dedicated time", "primetime", "prime-time"]) => WaitReason::NotBefore,
        _ if has(&["Draining", "offline", "down"]) => WaitReason::NodesUnavailable,
        _ => WaitReason::Other,
    }
}

/// A status of a job that a signal ended is this much more than the signal.
const SIGNALLED: i64 = 256;

/// Reads an `Exit_status` that isn't negative.
fn exit(status: i64) -> Option<Exit> {
    match status {
        0..=255 => i32::try_from(status).ok().map(Exit::Status),
        257..=320 => i32::try_from(status - SIGNALLED).ok().map(Exit::Signal),
        _ => None,
    }
}

/// The name after `terminated by `.
fn terminated_by(comment: &str) -> Option<String> {
    let by = comment.split_once("terminated by ")?.1.split_whitespace().next()?;
    Some(by.to_owned())
}

fn cause_of(status: i64) -> EndCause {
    if status == 0 { EndCause::Completed } else { EndCause::Failed }
}

/// Whether the server was not reached, in words, or the command has not ended by itself.
fn is_unreached(answer: &Answer) -> bool {
    let errors = answer.stderr();
    !matches!(answer.outcome, Outcome::Exited(_)) || CONNECTION.iter().any(|words| errors.contains(words))
}

/// The same, or by the exit status that OpenPBS has for it.
fn is_away(answer: &Answer) -> bool {
    is_unreached(answer) || matches!(&answer.outcome, Outcome::Exited(status) if AWAY.contains(status))
}

/// Reads the answer of `qdel`: jobs that it doesn't know, and those that have finished, are no reason to complain.
fn read_cancel(jobs: &[JobId], answer: &Answer) -> Result<(), CancelError> {
    if answer.succeeded() {
        return Ok(());
    }
    let errors = answer.stderr();
    let over = |job: &&JobId| errors.lines().filter_map(denied).any(|id| is_same(id, &job.0));
    let named =
        |job: &&JobId| errors.lines().any(|line| line.split_whitespace().any(|id| is_same(id, &job.0)));
    let all = is_away(answer);
    // Of a list, those that no line complains of have been cancelled.
    let left: Vec<_> = jobs.iter().filter(|job| all || (named(job) && !over(job))).cloned().collect();
    let explained = jobs.iter().any(|job| named(&job));
    if left.is_empty() && explained {
        return Ok(());
    }
    let jobs = if left.is_empty() { jobs.to_vec() } else { left };
    Err(CancelError { jobs, reason: answer.words("qdel") })
}
