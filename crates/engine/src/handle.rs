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

/// What the engine reports to the endpoint.
#[derive(Clone, Debug)]
pub enum Event {
    /// These tasks are sent to a node as soon as the endpoint answers with [`Handle::begin`].
    Assigned(Vec<TaskId>),
    /// The task was given to a node of this block. Comes for each attempt, if [`crate::EngineConfig::reports_blocks`] asks for it;
    /// never from a pool engine, which has no blocks.
    Placed { task: TaskId, block: u32 },
    /// The task has ended with this packed wire result, ready to be published. Comes once for each task.
    Ended { task: TaskId, result: Bytes },
    /// These tasks have not begun and will not: the engine is stopping.
    Returned(Vec<TaskId>),
    /// The engine can't run tasks any more. Outstanding tasks end with this text, and so do later ones.
    BadState { text: String },
}

/// The engine's events, in order. The channel closes after the last event of an engine that has stopped.
///
/// The channel needs no bound of its own: there are at most a few events per task, and the endpoint bounds the tasks
/// that it submits.
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

/// Sends commands to a running engine. Dropping the last clone stops the engine without a grace period.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(crate) commands: mpsc::UnboundedSender<Command>,
}

impl Handle {
    /// Submits one task. The caller bounds how many are outstanding.
    pub fn submit(&self, submission: Submission) -> Result<(), Stopped> {
        self.send(Command::Submit(submission))
    }

    /// Answers [`Event::Assigned`]: the endpoint's journal says that these tasks have begun.
    pub fn begin(&self, tasks: Vec<TaskId>) -> Result<(), Stopped> {
        self.send(Command::Begin(tasks))
    }

    /// Ends a task as cancelled; kills its worker when it runs. Does nothing to a task that has ended, nor to one that
    /// runs in a thread of a ThreadPoolEngine: threads can't be ended.
    pub fn cancel(&self, task: TaskId) -> Result<(), Stopped> {
        self.send(Command::Cancel(task))
    }

    /// The engine's part of the endpoint's heartbeat.
    pub async fn report(&self) -> Result<Report, Stopped> {
        let (answer, report) = oneshot::channel();
        self.send(Command::Report(answer))?;
        report.await.map_err(|_| Stopped)
    }

    /// Stops the engine: tasks that have not begun are returned, running ones have `grace` to end, and those that
    /// still run then end with the error of a lost node. The events channel closes at the end. A second call with a
    /// shorter grace shortens the first.
    pub fn stop(&self, grace: Duration) -> Result<(), Stopped> {
        self.send(Command::Stop(grace))
    }

    fn send(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).map_err(|_| Stopped)
    }
}
