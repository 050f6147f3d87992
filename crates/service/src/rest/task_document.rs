//! Builds the JSON document of a task, as its owner sees it.

use jiff::Timestamp;
use serde_json::Value;
use wire::TaskId;
use wire::Text;
use wire::message::TaskResult;
use wire::rest::error::Code;
use wire::rest::task::Document;

use crate::http::failure::Failure;
use crate::limits::Limits;
use store::TaskRow;
use store::tasks::state::{Outcome, State};

/// The document of `task`. `result` is the message that ended it. An open task at an offline endpoint has the status that it
/// waits for it.
pub(super) fn document<'m>(
    task: &TaskRow,
    result: Option<&'m [u8]>,
    endpoint_online: bool,
    limits: &Limits,
) -> Result<Document<'m>, Failure> {
    let (outcome, at) = match (&task.state, result) {
        (State::Open { .. }, _) => {
            return Ok(Document::pending(task.id, task.state.status(endpoint_online)));
        }
        (State::Ended { outcome, at }, Some(_)) => (outcome, at),
        // It may have expired since its state was read.
        (State::Expired { at } | State::Ended { at, .. }, None) | (State::Expired { at }, Some(_)) => {
            let text =
                format!("The result of the task has expired: it was kept for {} days", limits.result_days);
            return Ok(Document::failed(task.id, Text::plain(text), seconds(*at)));
        }
    };
    let message = result.ok_or_else(|| corrupt(task.id))?;
    let result = TaskResult::decode(message).map_err(|_| corrupt(task.id))?;
    let mut details = result.details;
    if let Some(statuses) = result.task_statuses.filter(|statuses| !statuses.is_empty()) {
        let transitions = statuses.iter().map(|it| {
            let name = serde_json::to_value(it.state).ok().and_then(|name| name.as_str().map(str::to_owned));
            #[expect(clippy::cast_precision_loss)] // seconds with a fraction are what clients read
            let seconds = it.timestamp as f64 / 1e9;
            (name.unwrap_or_default(), Value::from(seconds))
        });
        let transitions = transitions.collect();
        let mut all = details.map(|it| it.to_object()).unwrap_or_default();
        all.insert("task_transitions".to_owned(), Value::Object(transitions));
        details = Some(all.into());
    }
    let completion = seconds(*at);
    let document = match outcome {
        Outcome::Succeeded => Document::success(task.id, result.data, completion),
        Outcome::Failed => Document::failed(task.id, result.data, completion),
    };
    Ok(document.with_details(details))
}

fn corrupt(task: TaskId) -> Failure {
    tracing::error!(%task, "the stored result of a task can't be decoded");
    Failure::new(Code::InternalError, format!("The result of task {task} cannot be read"))
}

/// Seconds since 1970 with six decimals, as text.
fn seconds(at: Timestamp) -> String {
    let micros = at.as_microsecond();
    format!("{}.{:06}", micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000))
}
