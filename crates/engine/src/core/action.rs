//! What the core decides.

use wire::TaskId;

use super::failure::TaskFailure;
use super::nodes::NodeKey;

/// What must be done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    SubmitBlocks(Vec<u32>),
    CancelBlocks(Vec<u32>),
    /// Tell the owner that these are about to be sent.
    Assign(Vec<TaskId>),
    Send {
        node: NodeKey,
        task: TaskId,
    },
    /// Kill the worker that runs it, or forget it when none does yet.
    Abandon {
        node: NodeKey,
        task: TaskId,
    },
    /// Ask this node to give back what no worker of it has begun.
    Recall(NodeKey),
    /// The result that came with this input is the task's end.
    Deliver(TaskId),
    Fail {
        task: TaskId,
        failure: TaskFailure,
    },
    /// The task has ended as cancelled.
    Cancel(TaskId),
    /// Hand these back: they never began.
    Return(Vec<TaskId>),
    /// Cut this node's connection.
    DropNode(NodeKey),
    /// Tell the owner that no more tasks can be run.
    ReportBadState(String),
    /// Everything is said: tell the nodes to go and leave.
    Finish,
}
