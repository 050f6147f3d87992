//! The core's actions: what the driver must do.

use wire::TaskId;

use super::error_texts::TaskFailure;
use super::nodes::NodeKey;

/// What must be done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    SubmitBlocks(Vec<u32>),
    CancelBlocks(Vec<u32>),
    /// Tell the endpoint that these will be sent once it has journaled them.
    Assign(Vec<TaskId>),
    Send {
        node: NodeKey,
        task: TaskId,
    },
    /// Tell the node to kill the worker that runs the task, or to drop the task if none does.
    Abandon {
        node: NodeKey,
        task: TaskId,
    },
    /// Ask the node to give back the tasks that none of its workers has begun.
    Recall(NodeKey),
    /// The task has ended with the result that came with this input.
    Deliver(TaskId),
    Fail {
        task: TaskId,
        failure: TaskFailure,
    },
    /// The task has ended as cancelled.
    Cancel(TaskId),
    /// Hand these back to the endpoint: they have not begun.
    Return(Vec<TaskId>),
    /// Close this node's connection.
    DropNode(NodeKey),
    /// Tell the endpoint that no more tasks can be run.
    ReportBadState(String),
    /// The stop is complete: disconnect the nodes and end.
    Finish,
}
