//! The error results that the endpoint itself produces, in upstream's words.

use wire::message::{Actor, ErrorDetails, TaskResult, TaskState, TaskTransition};
use wire::{EndpointId, FunctionId, TaskId, Text};

const REMOTE: &str = "RemoteExecutionError";
const REMOTE_MESSAGE: &str = "An error occurred during the execution of this task";

/// The function is not on the endpoint's list. Returns the message as well.
pub(super) fn not_allowed(task: TaskId, function: FunctionId, endpoint: EndpointId) -> (Vec<u8>, String) {
    let text = format!("Function {function} not permitted on endpoint {endpoint}");
    // Formatted here to keep upstream's order of the members.
    let details = format!("{{\"fid\":\"{function}\",\"eid\":\"{endpoint}\"}}");
    let details = serde_json::from_str(&details).expect("two ids in braces are an object");
    let result = TaskResult {
        task_id: task,
        data: Text::plain(text.as_str()),
        details: Some(details),
        error_details: Some(ErrorDetails {
            code: "FUNCTION_NOT_ALLOWED".to_owned(),
            user_message: text.clone(),
        }),
        task_statuses: None,
    };
    (result.encode(), text)
}

/// The message can't be given to the engine.
pub(super) fn failed_to_start(task: TaskId, why: &str) -> Vec<u8> {
    failure(task, format!("Failed to start task: {why}"), Vec::new())
}

/// The task had begun when its endpoint died. `now` is in nanoseconds since 1970.
pub(crate) fn lost(task: TaskId, endpoint: EndpointId, host: &str, now: u64) -> Vec<u8> {
    let (above, below) = ("+".repeat(68), "-".repeat(68));
    let text = format!(
        "{above}\nTraceback (most recent call last):\nparsl.executors.high_throughput.errors.ManagerLost: \
         Task failure due to loss of endpoint {endpoint} on host {host}\n{below}"
    );
    let at = |state| TaskTransition { timestamp: now, state, actor: Actor::Interchange };
    failure(task, text, vec![at(TaskState::WaitingForLaunch), at(TaskState::ExecutionEnd)])
}

fn failure(task: TaskId, text: String, statuses: Vec<TaskTransition>) -> Vec<u8> {
    let error_details = ErrorDetails { code: REMOTE.to_owned(), user_message: REMOTE_MESSAGE.to_owned() };
    TaskResult {
        task_id: task,
        data: Text::plain(text),
        details: None,
        error_details: Some(error_details),
        task_statuses: Some(statuses),
    }
    .encode()
}
