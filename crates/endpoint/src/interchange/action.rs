//! The actions that the interchange asks its owner to perform.

use std::time::Duration;

use client::amqp::Tag;
use engine::Submission;
use wire::TaskId;

/// What to do, in this order.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    Submit(Box<Task>),
    /// Cancel the task; the engine reports its end.
    Cancel(TaskId),
    /// Record that these tasks begin.
    Journal(Vec<TaskId>),
    /// Record that these tasks, recorded as begun, do not begin.
    JournalReturned(Vec<TaskId>),
    /// Record that these tasks have ended; after that, remove their results from the spool.
    JournalEnded(Vec<TaskId>),
    /// Look up in the journal whether this task ever began.
    LookUp(TaskId),
    Acknowledge(Vec<Tag>),
    /// Return messages to the queue.
    Requeue(Vec<Tag>),
    /// Reject messages that can't be processed.
    Reject(Vec<Tag>),
    /// Write this record to the audit log. What begins after it may begin only once it is written.
    Record(String),
    Begin(Vec<TaskId>),
    Keep {
        task: TaskId,
        result: Vec<u8>,
    },
    Load(TaskId),
    /// Look for results of these tasks that an earlier run has written; the last time, remove its file.
    LookForResults {
        tasks: Vec<TaskId>,
        last: bool,
    },
    Publish {
        session: u32,
        task: TaskId,
        result: Vec<u8>,
    },
    Consume(bool),
    Heartbeat {
        session: u32,
        active: bool,
    },
    StopEngine {
        grace: Duration,
    },
    /// Apply [`super::Input::Stop`] after this time.
    StopWithin(Duration),
    /// Apply [`super::Input::StopTimedOut`] after this time.
    EndWithin(Duration),
    /// End the run.
    End,
}

/// A task for the engine. Submissions compare by id.
#[derive(Debug)]
pub(crate) struct Task(pub(crate) Submission);

impl PartialEq for Task {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}
