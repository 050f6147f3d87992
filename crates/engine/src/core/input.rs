//! What happens to the core.

use std::time::Duration;

use wire::TaskId;

use super::blocks::BlockEnd;
use super::failure::{AttemptFailure, NodeName};
use super::nodes::NodeKey;
use super::tasks::Priority;

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    Started,
    Submitted {
        task: TaskId,
        priority: Priority,
    },
    /// A task asks for what can't be given: it ends so, without having been taken in.
    Refused {
        task: TaskId,
        failure: AttemptFailure,
    },
    /// The owner has written down that these have begun.
    Begun(Vec<TaskId>),
    Cancelled(TaskId),
    BlockEnded {
        block: u32,
        end: BlockEnd,
    },
    /// A node has said hello; it gets tasks once it has joined.
    NodeStarting {
        node: NodeKey,
        block: u32,
    },
    /// One of its workers works.
    NodeJoined {
        node: NodeKey,
        block: u32,
        name: NodeName,
        slots: u32,
    },
    /// It has so many slots now.
    NodeResized {
        node: NodeKey,
        slots: u32,
    },
    NodeHeartbeat(NodeKey),
    NodeLost(NodeKey),
    TaskEnded {
        node: NodeKey,
        task: TaskId,
    },
    /// The answer to a recall: no worker has begun these.
    Unstarted {
        node: NodeKey,
        tasks: Vec<TaskId>,
    },
    WorkerLost {
        node: NodeKey,
        task: TaskId,
        rank: u32,
        hint: Option<String>,
    },
    Stop {
        grace: Duration,
    },
    Tick,
}
