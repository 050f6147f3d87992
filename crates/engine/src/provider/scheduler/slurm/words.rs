//! Slurm's words: the states of a job, why it waits, its exit code.

use crate::provider::scheduler::{BatchState, EndCause, Ended, Exit};
use crate::provider::scheduler::{Expected, Holder, Wait, WaitReason};

/// Reads a state in its long form, as `squeue`, `sacct` and `scontrol` write it: `CANCELLED by 1000`, `COMPLETED`.
pub(super) fn state(words: &str, reason: &str, start: &str) -> BatchState {
    let words = words.trim();
    let word = words.split([' ', '+']).next().unwrap_or_default();
    let ended = |cause| {
        // The reason of a cancelled job is why it had waited; the others say the same as the state.
        let known = word == "CANCELLED" || matches!(reason, "OutOfMemory" | "TimeLimit");
        let text = if known || is_none(reason) { word.to_owned() } else { format!("{word}: {reason}") };
        BatchState::Ended(Ended::new(cause, None, text))
    };
    let waiting =
        |reason_read| BatchState::Waiting(Wait::new(reason_read, known(reason), Expected::from_iso(start)));
    match word {
        "PENDING" => waiting(wait_reason(reason)),
        "CONFIGURING" | "POWER_UP_NODE" => waiting(WaitReason::NodesUnavailable),
        "REQUEUED" | "REQUEUE_FED" => waiting(WaitReason::NotBefore),
        "REQUEUE_HOLD" | "RESV_DEL_HOLD" => waiting(WaitReason::Held(Holder::Unknown)),
        "SPECIAL_EXIT" => waiting(WaitReason::StartFailed),
        "RUNNING" | "RESIZING" | "SIGNALING" | "STAGE_OUT" | "UPDATE_DB" => BatchState::Running,
        "SUSPENDED" | "STOPPED" => BatchState::Suspended,
        "COMPLETING" => BatchState::Ending,
        "COMPLETED" => ended(EndCause::Completed),
        "FAILED" => ended(EndCause::Failed),
        "OUT_OF_MEMORY" => ended(EndCause::OutOfMemory),
        "TIMEOUT" | "DEADLINE" => ended(EndCause::TimedOut),
        "NODE_FAIL" | "BOOT_FAIL" | "LAUNCH_FAILED" | "RECONFIG_FAIL" => ended(EndCause::NodeFailed),
        "PREEMPTED" => ended(EndCause::Preempted),
        // It may run on another cluster of the federation.
        "REVOKED" => BatchState::Unrecognised(word.to_owned()),
        "CANCELLED" => {
            let by = words.strip_prefix("CANCELLED by ").map(|id| format!("the user with id {id}"));
            ended(EndCause::Cancelled { by })
        }
        other => BatchState::Unrecognised(other.to_owned()),
    }
}

fn is_none(reason: &str) -> bool {
    matches!(reason, "" | "None" | "(null)" | "N/A")
}

fn known(reason: &str) -> &str {
    if is_none(reason) { "" } else { reason }
}

fn wait_reason(reason: &str) -> WaitReason {
    match reason {
        reason if is_none(reason) => WaitReason::NotConsidered,
        "Priority" => WaitReason::Priority,
        "Resources" | "Licenses" | "NotEnoughCores" | "MemLimit" => WaitReason::Resources,
        "Dependency" => WaitReason::Dependency,
        "BeginTime" | "Cleaning" | "SchedDefer" | "BackfillBeginTime" => WaitReason::NotBefore,
        "JobHeldUser" => WaitReason::Held(Holder::User),
        "JobHeldAdmin" => WaitReason::Held(Holder::Administrator),
        "JobHoldMaxRequeue" | "launch failed requeued held" | "JobLaunchFailure" => WaitReason::StartFailed,
        "PartitionDown" | "PartitionInactive" => WaitReason::QueueStopped,
        "Reservation" | "ReservationDeleted" => WaitReason::Reservation,
        "DependencyNeverSatisfied"
        | "InvalidAccount"
        | "InvalidQOS"
        | "BadConstraints"
        | "AccountNotAllowed"
        | "QOSNotAllowed"
        | "PartitionNodeLimit"
        | "PartitionTimeLimit"
        | "PartitionConfig" => WaitReason::Never,
        "NodeDown" | "FrontEndDown" => WaitReason::NodesUnavailable,
        long if long.starts_with("ReqNodeNotAvail")
            || long.starts_with("Nodes required for job are DOWN") =>
        {
            WaitReason::NodesUnavailable
        }
        limit if limit.contains("Limit") || limit.starts_with("QOS") || limit.starts_with("Assoc") => {
            WaitReason::Limit
        }
        _ => WaitReason::Other,
    }
}

/// The largest signal that Linux has. Slurm writes larger numbers for events of its own.
const LAST_SIGNAL: i32 = 64;

/// Reads `status:signal`. The success of a job that did not come to its end says nothing.
pub(super) fn exit(text: &str, cause: &EndCause) -> Option<Exit> {
    let (status, signal) = text.trim().split_once(':')?;
    match (status.parse().ok()?, signal.parse().ok()?) {
        (_, signal @ 1..=LAST_SIGNAL) => Some(Exit::Signal(signal)),
        (0, 0) if *cause != EndCause::Completed => None,
        (status, 0) => Some(Exit::Status(status)),
        _ => None,
    }
}
