//! The core's inputs: what has happened.

use std::time::Duration;

use wire::TaskId;

use super::blocks::BlockEnd;
use super::error_texts::{AttemptFailure, NodeName};
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
    /// The task asks for resources that the engine can't give: it ends at once with this failure.
    Refused {
        task: TaskId,
        failure: AttemptFailure,
    },
    /// The endpoint's journal says that these have begun.
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
    /// The node's first worker is ready.
    NodeJoined {
        node: NodeKey,
        block: u32,
        name: NodeName,
        slots: u32,
    },
    /// The node's number of slots has changed.
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
