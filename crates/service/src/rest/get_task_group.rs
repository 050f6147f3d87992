//! `GET /v2/taskgroup/{id}`.

use axum::Json;
use axum::extract::{Path, State};
use wire::TaskGroupId;
use wire::rest::task_group::{Member, TaskGroup};

use super::App;
use super::caller::Caller;
use super::failure::Failure;

pub(super) async fn get(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<Json<TaskGroup>, Failure> {
    let id: TaskGroupId = super::id(&id)?;
    let group = app.store.group(id).await?.filter(|group| group.owner == caller);
    let group = group.ok_or_else(|| Failure::unknown_group(id))?;
    let tasks = app.store.group_tasks(id).await?.into_iter().map(|(id, submitted)| Member {
        id,
        created_at: Some(submitted.strftime("%Y-%m-%dT%H:%M:%S.%6f").to_string()),
    });
    Ok(Json(TaskGroup { taskgroup_id: id, create_websockets_queue: group.queue, tasks: tasks.collect() }))
}
