//! The error texts of tasks that failed without a result.
//!
//! Upstream reports a lost worker as the Python exception that reached its executor. The SDK finds the exception's
//! name in the text and explains it to the user, so the names are upstream's to the letter.

use std::sync::Arc;
use std::time::Duration;

/// How nodes are named in texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeName {
    /// Twelve hexadecimal digits.
    pub(crate) uid: String,
    pub(crate) host: String,
}

/// Why one attempt to run a task failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AttemptFailure {
    /// The worker died while it ran the task. `hint` says what is known of the cause.
    WorkerLost { rank: u32, node: Arc<NodeName>, hint: Option<String> },
    /// The node was lost, or dropped before the task had ended.
    NodeLost { node: Arc<NodeName> },
    /// The engine is in bad state: no block would start.
    BadState { executor: Arc<str>, cause: Arc<str> },
    /// The task was submitted after the engine had entered bad state.
    SubmittedInBadState { cause: Arc<str> },
    /// The task asks for resources that this engine can't give.
    InvalidSpecification { text: String },
    /// The task asks a pool engine for resources, which pools don't have.
    NotStarted { text: String },
}

impl AttemptFailure {
    fn text(&self) -> String {
        const ERRORS: &str = "parsl.executors.high_throughput.errors";
        match self {
            Self::WorkerLost { rank, node, hint } => {
                let mut text = format!(
                    "{ERRORS}.WorkerLost: Task failure due to loss of worker {rank} on host {}",
                    node.host
                );
                if let Some(hint) = hint {
                    text.push('\n');
                    text.push_str(hint);
                }
                text
            }
            Self::NodeLost { node } => format!(
                "{ERRORS}.ManagerLost: Task failure due to loss of manager {} on host {}",
                node.uid, node.host
            ),
            Self::BadState { executor, cause } => {
                format!(
                    "parsl.executors.errors.BadStateException: Executor {executor} failed due to: {cause}"
                )
            }
            Self::SubmittedInBadState { cause } => {
                format!("parsl.jobs.errors.TooManyJobFailuresError: {cause}")
            }
            Self::NotStarted { text } => format!("Failed to start task: {text}"),
            Self::InvalidSpecification { text } => {
                format!("parsl.executors.errors.InvalidResourceSpecification: {text}")
            }
        }
    }

    fn traceback(&self) -> String {
        format!("Traceback (most recent call last):\n{}\n", self.text())
    }
}

/// The end of a task without a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TaskFailure {
    /// The failure of every attempt, in order; never empty.
    pub(crate) attempts: Vec<AttemptFailure>,
    /// When the last attempt was submitted.
    pub(crate) began: Duration,
}

impl TaskFailure {
    /// The text users see.
    pub(crate) fn text(&self) -> String {
        if let [only @ AttemptFailure::NotStarted { .. }] = self.attempts.as_slice() {
            return only.text();
        }
        let (above, below) = ("+".repeat(68), "-".repeat(68));
        if let [only] = self.attempts.as_slice() {
            return format!("{above}\n{}{below}", only.traceback());
        }
        let last = self.attempts.len().saturating_sub(1);
        let blocks: Vec<_> = self
            .attempts
            .iter()
            .enumerate()
            .map(|(index, loss)| {
                let which = if index == last { "final attempt".to_owned() } else { index.to_string() };
                format!("{above}\nTraceback from attempt: {which}\n{}{below}", loss.traceback())
            })
            .collect();
        blocks.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Arc<NodeName> {
        Arc::new(NodeName { uid: "466b55d38ce3".into(), host: "vm".into() })
    }

    #[test]
    fn a_single_attempt_has_no_heading() {
        let failure = TaskFailure {
            attempts: vec![AttemptFailure::WorkerLost { rank: 1, node: node(), hint: None }],
            began: Duration::ZERO,
        };
        assert_eq!(
            failure.text(),
            "++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++\n\
             Traceback (most recent call last):\n\
             parsl.executors.high_throughput.errors.WorkerLost: Task failure due to loss of worker 1 on host vm\n\
             --------------------------------------------------------------------"
        );
    }

    #[test]
    fn every_attempt_is_listed() {
        let failure = TaskFailure {
            attempts: vec![
                AttemptFailure::WorkerLost { rank: 0, node: node(), hint: Some("It was killed.".into()) },
                AttemptFailure::NodeLost { node: node() },
            ],
            began: Duration::ZERO,
        };
        assert_eq!(
            failure.text(),
            "++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++\n\
             Traceback from attempt: 0\n\
             Traceback (most recent call last):\n\
             parsl.executors.high_throughput.errors.WorkerLost: Task failure due to loss of worker 0 on host vm\n\
             It was killed.\n\
             --------------------------------------------------------------------\n\
             ++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++\n\
             Traceback from attempt: final attempt\n\
             Traceback (most recent call last):\n\
             parsl.executors.high_throughput.errors.ManagerLost: Task failure due to loss of manager 466b55d38ce3 \
             on host vm\n\
             --------------------------------------------------------------------"
        );
    }
}
