//! The events that the interchange handles.

use std::collections::HashSet;

use client::amqp::{Delivery, PublishStatus};
use wire::{FunctionId, TaskId};

/// An event.
#[derive(Debug)]
pub(crate) enum Input {
    LinkUp {
        session: u32,
    },
    LinkDown,
    LinkEnded,
    Delivered(Delivery),
    /// The engine picked nodes for these.
    Assigned(Vec<TaskId>),
    /// The engine has a task's result.
    Ended {
        task: TaskId,
        result: Vec<u8>,
    },
    /// The engine returns these tasks: they never began.
    Returned(Vec<TaskId>),
    /// The engine gave a task to this block.
    Placed {
        task: TaskId,
        block: u32,
    },
    /// Audit records can't be written: nothing may run any more.
    RecordsFailed,
    /// The engine can't run tasks any more.
    EngineFailed,
    EngineStopped,
    /// These are on disk as begun.
    Journaled(Vec<TaskId>),
    JournalFailed,
    /// The journal's answer: whether this task ever began.
    LookedUp {
        task: TaskId,
        known: bool,
    },
    /// The result is in the spool.
    Kept {
        task: TaskId,
        result: Vec<u8>,
    },
    /// The result could not be written to the spool.
    NotKept {
        task: TaskId,
        result: Vec<u8>,
    },
    /// A result was read from the spool; `None` if it can't be read.
    Loaded {
        task: TaskId,
        result: Option<Vec<u8>>,
    },
    Settled {
        task: TaskId,
        status: PublishStatus,
    },
    /// Another process has claimed the endpoint while this one was suspended.
    Superseded,
    /// It is time to look for results that an earlier run has written to the spool since.
    LookForResults {
        last: bool,
    },
    /// The results of these tasks are in the spool now. After the last look none is awaited any more.
    ResultsFound {
        tasks: Vec<TaskId>,
        last: bool,
    },
    /// From now on only these functions are allowed; `None` allows all. Tasks that wait and use
    /// another are refused.
    Allowed(Option<HashSet<FunctionId>>),
    /// The service cancels these tasks.
    Cancel(Vec<TaskId>),
    /// It is time for a heartbeat.
    HeartbeatDue,
    /// The first signal.
    Stop,
    /// The second signal.
    Hurry,
    /// The manager has ended: nothing may outlive it.
    Orphaned,
    /// The time limit of the stop is over.
    StopTimedOut,
}
