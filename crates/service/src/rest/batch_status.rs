//! `POST /v2/batch_status`.

use std::collections::{BTreeMap, HashMap};

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use wire::rest::error::Code;
use wire::rest::task::{Batch, Document, Documents};

use super::App;
use super::caller::Caller;
use super::failure::Failure;
use super::task_document::document;
use crate::ambient;

/// Tasks in one request.
const TASKS: usize = 10_000;

pub(super) async fn batch_status(
    State(app): State<App>,
    Caller(caller): Caller,
    request: Request,
) -> Result<Response, Failure> {
    let body = app.room.read(request, wire::rest::LIMIT).await?;
    let wanted: Batch = wire::json::decode(&body.bytes, wire::rest::LIMIT)?;
    if wanted.task_ids.len() > TASKS {
        return Err(Failure::new(Code::BatchRunTooLarge, format!("task_ids: more than {TASKS}")));
    }
    let now = ambient::now();
    let found = app.store.tasks(&wanted.task_ids).await?;
    let own: HashMap<_, _> = found.iter().filter(|it| it.owner == caller).map(|it| (it.id, it)).collect();
    let mut results = BTreeMap::new();
    for id in wanted.task_ids {
        let told = match own.get(&id) {
            Some(task) => document(task, app.presence.online(task.endpoint, now))?,
            None => Document::unknown(id),
        };
        results.insert(id, told);
    }
    Ok(Json(Documents::new(results)).into_response())
}
