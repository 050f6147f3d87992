//! Results that the engine itself makes: for tasks that were lost or cancelled.

use std::time::Duration;

use bytes::Bytes;
use wire::TaskId;
use wire::message::{Actor, ErrorDetails, TaskResult, TaskState, TaskTransition};

use crate::clock::Clock;
use crate::core::TaskFailure;

/// The result of a lost task; its texts are upstream's.
pub(crate) fn failed_result(task: TaskId, failure: &TaskFailure, clock: &Clock) -> Bytes {
    let transition = |at: Duration, state| TaskTransition {
        timestamp: clock.wall_nanos(at),
        state,
        actor: Actor::Interchange,
    };
    TaskResult {
        task_id: task,
        data: failure.text().into(),
        details: None,
        error_details: Some(ErrorDetails {
            code: "RemoteExecutionError".into(),
            user_message: "An error occurred during the execution of this task".into(),
        }),
        task_statuses: Some(vec![
            transition(failure.began, TaskState::WaitingForLaunch),
            transition(clock.now(), TaskState::ExecutionEnd),
        ]),
    }
    .encode()
    .into()
}

/// The result of a cancelled task. Upstream has none, so the text is ours.
pub(crate) fn cancelled_result(task: TaskId) -> Bytes {
    const TEXT: &str = "The task was cancelled";
    TaskResult {
        task_id: task,
        data: TEXT.into(),
        details: None,
        error_details: Some(ErrorDetails { code: "TaskCancelled".into(), user_message: TEXT.into() }),
        task_statuses: None,
    }
    .encode()
    .into()
}
