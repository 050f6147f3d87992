//! `GET /v2/tasks/{id}`.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use wire::TaskId;

use super::App;
use super::caller::Caller;
use super::failure::Failure;
use super::task_document::document;
use crate::ambient;

pub(super) async fn get(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let id: TaskId = super::id(&id)?;
    let tasks = app.store.tasks(&[id]).await?;
    let task = tasks.iter().find(|task| task.owner == caller).ok_or_else(|| Failure::unknown_task(id))?;
    let online = app.presence.online(task.endpoint, ambient::now());
    Ok(Json(document(task, online)?).into_response())
}
