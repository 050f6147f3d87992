//! `GET /v2/taskgroup/{id}`: the tasks of a task group, read and sent in pages.

use axum::extract::{Path, State};
use axum::response::Response;
use futures_util::stream;
use wire::rest::error::Code;
use wire::rest::task_group::Member;
use wire::{TaskGroupId, TaskId};

use super::App;
use super::caller::Caller;
use super::route::{Method, Route};
use crate::http::failure::Failure;
use crate::permissions::{self, Permission};

/// Tasks read at a time.
const TOGETHER: usize = 1000;
/// Bytes that one of them takes in an answer, roughly.
const ENTRY: usize = 128;

pub(super) const ROUTE: Route = Route {
    refusals: &[Code::TaskGroupNotFound],
    ..Route::new(
        Method::Get,
        "/v2/taskgroup/{id}",
        "get_task_group",
        "TaskGroup",
        "The tasks of a task group",
    )
};

pub(super) async fn get(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let id: TaskGroupId = super::id(&id)?;
    let group = app
        .store
        .task_group(id)
        .await?
        .filter(|group| permissions::tasks(group, caller) == Permission::Granted);
    let group = group.ok_or_else(|| Failure::unknown_group(id))?;
    let memory = app.unread_answers.take(caller, TOGETHER * ENTRY)?;
    let open = format!(
        r#"{{"taskgroup_id":"{id}","create_websockets_queue":{queue},"tasks":["#,
        queue = group.queue
    );
    let pages = stream::try_unfold(Some(None), move |after: Option<Option<TaskId>>| {
        let (app, memory) = (app.clone(), memory.clone());
        async move {
            let Some(after) = after else { return Ok(None) };
            let tasks = app.store.task_group_tasks(id, after, TOGETHER).await?;
            let last = tasks.last().map(|(task, _)| *task);
            let mut text = Vec::new();
            for (index, (task, submitted)) in tasks.iter().enumerate() {
                if after.is_some() || index > 0 {
                    text.push(b',');
                }
                let created_at = Some(submitted.strftime("%Y-%m-%dT%H:%M:%S.%6f").to_string());
                text.extend(wire::json::encode(&Member { id: *task, created_at }));
            }
            let next = (tasks.len() == TOGETHER).then_some(last);
            Ok::<_, Failure>(Some((memory.bytes(text), next)))
        }
    });
    super::stream::json(open, pages, "]}").await
}
