//! The interface of a running engine: the endpoint submits tasks and receives events.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use wire::TaskId;

use crate::report::Report;

/// One task for the engine.
#[derive(Clone, Debug)]
pub struct Submission {
    pub id: TaskId,
    /// The task message as delivered, first byte 0x01. Never re-encoded.
    pub body: Bytes,
    /// The header `resource_specification`; empty when absent.
    pub resource_specification: serde_json::Map<String, serde_json::Value>,
    /// The header `result_serializers`.
    pub result_serializers: Vec<String>,
    /// The header `function_python`: the interpreter version the function was registered from.
    pub function_python: Option<String>,
}

/// What the engine tells its owner.
#[derive(Clone, Debug)]
pub enum Event {
    /// These tasks will be sent to a node as soon as the owner answers [`Handle::begin`].
    Assigned(Vec<TaskId>),
    /// The one end of this task: a packed wire result, ready to be published.
    Ended { task: TaskId, result: Bytes },
    /// These tasks never began and will not: the engine is stopping.
    Returned(Vec<TaskId>),
    /// The engine can't run tasks any more. What was outstanding ends with this text; so does what comes later.
    BadState { text: String },
}

/// The engine's events, in order. The channel closes when the engine has stopped and everything is said.
///
/// Unbounded, because its length is: at most a few events per task, and the owner bounds the tasks it submits.
pub type Events = mpsc::UnboundedReceiver<Event>;

/// The engine has stopped; the call came too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the engine has stopped")]
pub struct Stopped;

/// What a [`Handle`] asks of the engine.
#[derive(Debug)]
pub(crate) enum Command {
    Submit(Submission),
    Begin(Vec<TaskId>),
    Cancel(TaskId),
    Report(oneshot::Sender<Report>),
    Stop(Duration),
}

/// Speaks to a running engine. Cloned freely; dropping the last one stops the engine without grace.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(crate) commands: mpsc::UnboundedSender<Command>,
}

impl Handle {
    /// Hands over one task. The owner bounds how many are outstanding.
    pub fn submit(&self, submission: Submission) -> Result<(), Stopped> {
        self.send(Command::Submit(submission))
    }

    /// Answers [`Event::Assigned`]: the owner has written down that these tasks have begun.
    pub fn begin(&self, tasks: Vec<TaskId>) -> Result<(), Stopped> {
        self.send(Command::Begin(tasks))
    }

    /// Ends a task as cancelled; kills its worker when it runs. Does nothing to a task that has ended, nor to one that
    /// runs in a thread of a ThreadPoolEngine: threads can't be ended.
    pub fn cancel(&self, task: TaskId) -> Result<(), Stopped> {
        self.send(Command::Cancel(task))
    }

    /// The figures an endpoint's heartbeat carries.
    pub async fn report(&self) -> Result<Report, Stopped> {
        let (answer, report) = oneshot::channel();
        self.send(Command::Report(answer))?;
        report.await.map_err(|_| Stopped)
    }

    /// Stops: what has not begun is returned, what runs has `grace` to end, the rest ends with the lost text.
    /// The events channel closes when all is done. A second call with a shorter grace hurries the first.
    pub fn stop(&self, grace: Duration) -> Result<(), Stopped> {
        self.send(Command::Stop(grace))
    }

    fn send(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).map_err(|_| Stopped)
    }
}
