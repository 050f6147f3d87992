//! LSF's words: the states of a job, why it waits, why it ended.

use crate::provider::scheduler::{BatchState, EndCause, Ended, Exit};
use crate::provider::scheduler::{Expected, Holder, Wait, WaitReason};

/// Reads the fields of a line of `bjobs`; `-` stands for nothing.
pub(super) fn state(state: &str, exit: &str, reason: &str, pending: &str, start: &str) -> BatchState {
    let given = |text: &'_ str| if text == "-" { String::new() } else { text.to_owned() };
    let (reason, pending) = (given(reason), given(pending));
    let waiting = |reason| {
        BatchState::Waiting(Wait::new(reason, pending.trim_end_matches(';'), Expected::from_iso(start)))
    };
    match state {
        "PEND" | "WAIT" => waiting(wait_reason(&pending)),
        "PSUSP" => waiting(WaitReason::Held(Holder::User)),
        "RUN" | "PROV" | "UNKWN" => BatchState::Running,
        "USUSP" | "SSUSP" => BatchState::Suspended,
        "ZOMBI" => BatchState::Ending,
        "DONE" => BatchState::Ended(Ended::new(EndCause::Completed, Some(Exit::Status(0)), "DONE")),
        "EXIT" => {
            let status = exit.parse().ok();
            let words = if reason.is_empty() { "EXIT" } else { reason.as_str() };
            BatchState::Ended(Ended::new(end_cause(&reason, status), status.map(exit_of), words))
        }
        other => BatchState::Unrecognised(other.chars().take(16).collect()),
    }
}

/// As a shell says it.
const SIGNALLED: i32 = 128;
const LAST_SIGNAL: i32 = 64;
/// SIGUSR2, which LSF sends at the end of the walltime.
const RUN_LIMIT: i32 = SIGNALLED + 12;

fn exit_of(status: i32) -> Exit {
    if (SIGNALLED + 1..=SIGNALLED + LAST_SIGNAL).contains(&status) {
        Exit::Signal(status - SIGNALLED)
    } else {
        Exit::Status(status)
    }
}

fn end_cause(reason: &str, status: Option<i32>) -> EndCause {
    let has = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    match reason {
        _ if has(&["TERM_MEMLIMIT", "TERM_SWAP"]) => EndCause::OutOfMemory,
        _ if has(&["TERM_RUNLIMIT", "TERM_DEADLINE", "TERM_WINDOW"]) => EndCause::TimedOut,
        _ if has(&["TERM_OWNER", "TERM_FORCE_OWNER"]) => {
            EndCause::Cancelled { by: Some("the job's owner".to_owned()) }
        }
        _ if has(&["TERM_ADMIN", "TERM_FORCE_ADMIN"]) => {
            EndCause::Cancelled { by: Some("an administrator of the cluster".to_owned()) }
        }
        _ if has(&["TERM_PREEMPT", "TERM_REQUEUE"]) => EndCause::Preempted,
        _ if has(&["TERM_ZOMBIE", "TERM_ORPHAN_SYSTEM", "host failure"]) => EndCause::NodeFailed,
        "" if status == Some(RUN_LIMIT) => EndCause::TimedOut,
        _ => EndCause::Failed,
    }
}

fn wait_reason(words: &str) -> WaitReason {
    let has = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    match words {
        "" => WaitReason::NotConsidered,
        _ if has(&["waiting for scheduling"]) => WaitReason::NotConsidered,
        _ if has(&["ependency"]) => WaitReason::Dependency,
        _ if has(&["inactivated", "is closed", "not dispatch", "dispatch window"]) => {
            WaitReason::QueueStopped
        }
        _ if has(&["limit", "Limit"]) => WaitReason::Limit,
        _ if has(&["begin time", "start time"]) => WaitReason::NotBefore,
        _ if has(&["unavailable", "unreachable", "closed by", "Closed by"]) => WaitReason::NodesUnavailable,
        _ if has(&["reservation"]) => WaitReason::Reservation,
        _ if has(&["ot enough", "requirements", "not satisfied"]) => WaitReason::Resources,
        _ if has(&["priority"]) => WaitReason::Priority,
        _ => WaitReason::Other,
    }
}
