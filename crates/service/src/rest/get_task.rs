//! `GET /v2/tasks/{id}`: the state of a task, and its result.

use axum::extract::{Path, State};
use axum::response::Response;
use wire::TaskId;
use wire::rest::error::Code;

use super::App;
use super::caller::Caller;
use super::route::{Method, Route};
use super::task_document::document;
use crate::clock;
use crate::http::failure::Failure;

pub(super) const ROUTE: Route = Route {
    refusals: &[Code::TaskNotFound],
    ..Route::new(Method::Get, "/v2/tasks/{id}", "get_task", "Task", "What is known of a task")
};

pub(super) async fn get(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let id: TaskId = super::id(&id)?;
    let tasks = app.store.tasks(&[id]).await?;
    let task = tasks.iter().find(|task| task.owner == caller).ok_or_else(|| Failure::unknown_task(id))?;
    let online = app.presence.online(task.endpoint, clock::now());
    let memory = app.unread_answers.take(caller, task.result_bytes)?;
    let results = app.store.results(&[id]).await?;
    let result = results.get(&id).map(Vec::as_slice);
    Ok(memory.json(&document(task, result, online, &app.limits)?))
}
