//! `POST /v2/batch_status`: the states and results of many tasks, read and sent in portions.

use std::collections::{BTreeMap, HashMap};

use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::{StreamExt, stream};
use wire::TaskId;
use wire::rest::error::Code;
use wire::rest::task::{Batch, Document};

use super::App;
use super::caller::Caller;
use super::route::{Method, Route};
use super::task_document::document;
use crate::clock;
use crate::http::failure::Failure;
use store::TaskRow;

/// Results read at a time: so many, and of so many bytes.
const TOGETHER: usize = 1000;
const BYTES: usize = 4 << 20;
/// Bytes that what is known of a task takes until it is sent, without its result, roughly.
const ENTRY: usize = 256;

pub(super) const ROUTE: Route = Route {
    body: Some("Batch"),
    refusals: &[Code::BatchRunTooLarge],
    ..Route::new(Method::Post, "/v2/batch_status", "get_batch_status", "Tasks", "What is known of many tasks")
};

pub(super) async fn batch_status(
    State(app): State<App>,
    Caller(caller): Caller,
    request: Request,
) -> Result<Response, Failure> {
    let body = app.bodies.read(request, app.limits.body_bytes).await?;
    let wanted: Batch = wire::json::decode(&body.bytes, app.limits.body_bytes)?;
    drop(body);
    let most = app.limits.tasks_per_status;
    if wanted.task_ids.len() > most {
        return Err(Failure::new(Code::BatchRunTooLarge, format!("task_ids: more than {most}")));
    }
    let found = app.store.tasks(&wanted.task_ids).await?;
    let own: HashMap<_, _> =
        found.into_iter().filter(|it| it.owner == caller).map(|it| (it.id, it)).collect();
    let asked: BTreeMap<_, _> = wanted.task_ids.into_iter().map(|id| (id, own.get(&id).cloned())).collect();
    let entries = asked.len() * ENTRY;
    let portions = portions(asked);
    let largest = portions.iter().map(|portion| result_bytes(portion)).max().unwrap_or_default();
    let memory = app.unread_answers.take(caller, entries + largest)?;
    let pieces = stream::iter(portions).enumerate().then(move |(index, tasks)| {
        let (app, memory) = (app.clone(), memory.clone());
        async move { Ok(memory.bytes(piece(&app, tasks, index == 0).await?)) }
    });
    super::stream::json(r#"{"response":"batch","results":{"#, pieces, "}}").await
}

/// A task that was asked for. None if it doesn't exist or belongs to another.
type WantedTask = (TaskId, Option<TaskRow>);

fn result_bytes(tasks: &[WantedTask]) -> usize {
    tasks.iter().filter_map(|(_, task)| task.as_ref()).map(|task| task.result_bytes).sum()
}

/// Divides tasks into portions, each to be read at a time.
fn portions(asked: BTreeMap<TaskId, Option<TaskRow>>) -> Vec<Vec<WantedTask>> {
    let mut portions: Vec<Vec<WantedTask>> = Vec::new();
    let mut bytes = 0;
    for (id, task) in asked {
        bytes += task.as_ref().map_or(0, |task| task.result_bytes);
        match portions.last_mut() {
            Some(portion) if portion.len() < TOGETHER && bytes <= BYTES => portion.push((id, task)),
            _ => {
                bytes = task.as_ref().map_or(0, |task| task.result_bytes);
                portions.push(vec![(id, task)]);
            }
        }
    }
    portions
}

async fn piece(app: &App, tasks: Vec<WantedTask>, first: bool) -> Result<Vec<u8>, Failure> {
    let ended: Vec<_> = tasks
        .iter()
        .filter_map(|(_, task)| task.as_ref())
        .filter(|task| task.result_bytes > 0)
        .map(|task| task.id)
        .collect();
    let results = app.store.results(&ended).await?;
    let now = clock::now();
    let mut text = Vec::new();
    for (index, (id, task)) in tasks.iter().enumerate() {
        let document = match task {
            Some(task) => {
                let online = app.presence.online(task.endpoint, now);
                document(task, results.get(id).map(Vec::as_slice), online, &app.limits)?
            }
            None => Document::unknown(*id),
        };
        if !first || index > 0 {
            text.push(b',');
        }
        text.extend(format!("\"{id}\":").into_bytes());
        text.extend(wire::json::encode(&document));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use store::tasks::state::State;

    #[test]
    fn a_portion_is_bounded_in_number_and_bytes() {
        let task = |n: u128, result_bytes| {
            let id = Uuid::from_u128(n);
            let (owner, endpoint) = (id.into(), id.into());
            (id.into(), Some(TaskRow { id: id.into(), owner, endpoint, state: State::NEW, result_bytes }))
        };
        let sizes = |tasks: Vec<WantedTask>| -> Vec<usize> {
            portions(tasks.into_iter().collect()).iter().map(Vec::len).collect()
        };
        assert!(sizes(vec![]).is_empty());
        assert_eq!(sizes((0..2500).map(|n| task(n, 1)).collect()), [1000, 1000, 500]);
        assert_eq!(sizes((0..3).map(|n| task(n, BYTES)).collect()), [1, 1, 1]);
        assert_eq!(sizes((0..5).map(|n| task(n, BYTES / 2)).collect()), [2, 2, 1]);
        assert_eq!(sizes(vec![task(1, 10 * BYTES), task(2, 1)]), [1, 1]);
    }
}
