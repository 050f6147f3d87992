//! What is known of a job: its state, and how it has ended, in words that all schedulers share.

use std::collections::HashMap;

use super::command::shorten;
use super::waiting::Wait;
use crate::provider::{JobId, JobOutput, JobState};

/// What a scheduler says of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JobReport {
    pub(crate) state: BatchState,
    /// The job's name, if the answer has it: after a long time, its id may belong to another job.
    pub(crate) name: Option<String>,
}

/// The state of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BatchState {
    /// In the queue, or held, or requeued.
    Waiting(Wait),
    Running,
    /// It has its nodes, but its processes are stopped.
    Suspended,
    /// Its processes are being ended.
    Ending,
    /// It may come back: see the ledger.
    Ended(Ended),
    /// A state that this version doesn't know, in the scheduler's word. The job may run.
    Unrecognised(String),
}

impl BatchState {
    /// The state as every provider has it. `output` says where the job's output is.
    pub(crate) fn job_state(&self, output: JobOutput) -> JobState {
        match self {
            Self::Waiting(wait) if wait.reason.is_held() => JobState::Held,
            Self::Waiting(_) => JobState::Pending,
            // What is not understood may run.
            Self::Running | Self::Suspended | Self::Ending | Self::Unrecognised(_) => JobState::Running,
            Self::Ended(how) => {
                let exit_code = match how.exit {
                    Some(Exit::Status(status)) => Some(status),
                    // As a shell says it.
                    Some(Exit::Signal(signal)) => Some(128 + signal),
                    None => None,
                };
                let output = JobOutput { message: Some(how.text()), exit_code, ..output };
                match how.cause {
                    EndCause::Completed => JobState::Completed(output),
                    EndCause::TimedOut | EndCause::Preempted => JobState::TimedOut(output),
                    EndCause::Cancelled { .. } => JobState::Cancelled(how.text()),
                    EndCause::Failed | EndCause::OutOfMemory | EndCause::NodeFailed | EndCause::NeverRan => {
                        JobState::Failed(output)
                    }
                }
            }
        }
    }
}

/// Why a job has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EndCause {
    Completed,
    Failed,
    OutOfMemory,
    /// Its walltime was over.
    TimedOut,
    /// A node or its start failed, which is not the job's fault.
    NodeFailed,
    Preempted,
    Cancelled {
        by: Option<String>,
    },
    /// The scheduler withdrew it before it ran: a dependency or deadline that can't be met.
    NeverRan,
}

impl EndCause {
    /// Whether the cluster ended it rather than the job's own doing.
    pub(crate) fn is_an_outage(&self) -> bool {
        matches!(self, Self::NodeFailed | Self::Preempted)
    }
}

/// How a job has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) cause: EndCause,
    pub(crate) exit: Option<Exit>,
    /// The scheduler's own words: `OUT_OF_MEMORY`, a comment.
    pub(crate) words: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Status(i32),
    Signal(i32),
}

impl Ended {
    pub(super) fn new(cause: EndCause, exit: Option<Exit>, words: impl Into<String>) -> Self {
        Self { cause, exit, words: shorten(&words.into()) }
    }

    /// The sentence for users: `ended: OUT_OF_MEMORY (memory ran out), exit status 1`.
    pub(crate) fn text(&self) -> String {
        let cause = match &self.cause {
            EndCause::Completed => "its script came to its end".to_owned(),
            EndCause::Failed => "its script failed".to_owned(),
            EndCause::OutOfMemory => "it took more memory than it had asked for".to_owned(),
            EndCause::TimedOut => "its walltime was over".to_owned(),
            EndCause::NodeFailed => "a node of it failed".to_owned(),
            EndCause::Preempted => "another job took its place".to_owned(),
            EndCause::Cancelled { by: Some(by) } => format!("cancelled by {by}"),
            EndCause::Cancelled { by: None } => "cancelled".to_owned(),
            EndCause::NeverRan => "the scheduler withdrew it before it ran".to_owned(),
        };
        let exit = match self.exit {
            Some(Exit::Status(status)) => format!(", exit status {status}"),
            Some(Exit::Signal(signal)) => format!(", killed by signal {signal}"),
            None => String::new(),
        };
        if self.words.is_empty() {
            format!("{cause}{exit}")
        } else {
            format!("{} ({cause}){exit}", self.words)
        }
    }
}

/// What is known of a job after a poll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Known(JobReport),
    /// The scheduler has answered that it has no such job; with how it ended, if its accounting tells.
    Absent(Option<Ended>),
}

pub(crate) type Verdicts = HashMap<JobId, Verdict>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::scheduler::{Holder, WaitReason};

    #[test]
    fn every_state_is_one_of_every_providers() {
        let output = JobOutput { stderr: Some("/s/x.stderr".into()), ..JobOutput::default() };
        let state = |state: BatchState| state.job_state(output.clone());
        let wait = |reason| BatchState::Waiting(Wait { reason, words: String::new(), expected: None });
        assert_eq!(state(wait(WaitReason::Priority)), JobState::Pending);
        assert_eq!(state(wait(WaitReason::Held(Holder::User))), JobState::Held);
        assert_eq!(state(BatchState::Unrecognised("X".into())), JobState::Running);
        let ended = |cause| state(BatchState::Ended(Ended::new(cause, Some(Exit::Signal(9)), "W")));
        let JobState::Failed(report) = ended(EndCause::OutOfMemory) else { panic!() };
        assert_eq!((report.exit_code, report.stderr), (Some(137), output.stderr.clone()));
        assert!(report.message.unwrap().starts_with("W (it took more memory"));
        assert!(matches!(ended(EndCause::TimedOut), JobState::TimedOut(_)));
        assert!(matches!(ended(EndCause::Completed), JobState::Completed(_)));
        let cancelled = EndCause::Cancelled { by: Some("root".into()) };
        assert!(matches!(ended(cancelled), JobState::Cancelled(by) if by.contains("by root")));
    }

    #[test]
    fn a_sentence_says_how_a_job_has_ended() {
        let text = |cause, exit, words| Ended::new(cause, exit, words).text();
        for (said, expected) in [
            (
                text(EndCause::OutOfMemory, None, "OUT_OF_MEMORY"),
                "OUT_OF_MEMORY (it took more memory than it had asked for)",
            ),
            (
                text(EndCause::Failed, Some(Exit::Status(3)), "FAILED"),
                "FAILED (its script failed), exit status 3",
            ),
            (
                text(EndCause::Cancelled { by: Some("root@pbs".into()) }, Some(Exit::Signal(15)), ""),
                "cancelled by root@pbs, killed by signal 15",
            ),
            (text(EndCause::TimedOut, None, "TIMEOUT"), "TIMEOUT (its walltime was over)"),
            (text(EndCause::NodeFailed, None, "NODE_FAIL"), "NODE_FAIL (a node of it failed)"),
            (text(EndCause::Preempted, None, ""), "another job took its place"),
            (text(EndCause::NeverRan, None, ""), "the scheduler withdrew it before it ran"),
            (text(EndCause::Completed, None, ""), "its script came to its end"),
            (text(EndCause::Cancelled { by: None }, None, ""), "cancelled"),
        ] {
            assert_eq!(said, expected);
        }
        assert!(EndCause::NodeFailed.is_an_outage() && !EndCause::Failed.is_an_outage());
    }
}
