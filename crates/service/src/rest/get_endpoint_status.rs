//! `GET /v2/endpoints/{id}/status`: whether an endpoint is online, and its last report.

use axum::Json;
use axum::extract::{Path, State};
use wire::EndpointId;
use wire::json::FreeForm;
use wire::rest::endpoint::{EndpointState, Presence, Status, TaskCounts};
use wire::rest::error::Code;

use super::App;
use super::caller::Caller;
use super::route::{Method, Route};
use crate::clock;
use crate::http::failure::Failure;
use crate::permissions::Permission;

pub(super) const ROUTE: Route = Route {
    refusals: &[Code::EndpointNotFound],
    ..Route::new(
        Method::Get,
        "/v2/endpoints/{id}/status",
        "get_endpoint_status",
        "EndpointStatus",
        "Whether an endpoint is online, what it last said, and how many of its tasks stand where",
    )
};

pub(super) async fn status(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<Json<Status>, Failure> {
    let id: EndpointId = super::id(&id)?;
    let endpoint = super::seen(&app, id, caller).await?;
    let now = clock::now();
    let online = app.presence.online(id, now);
    let status = if online { Presence::Online } else { Presence::Offline };
    // The state names users, hosts and the whole configuration.
    if super::manage(&app, &endpoint, caller).await? != Permission::Granted {
        return Ok(Json(Status { status, details: FreeForm::default(), farcall: None }));
    }
    let counters = app.store.counters(id).await?;
    let consuming = app.dispatch.consumes(id);
    let notice = match app.presence.idle(id, now).filter(|_| !consuming) {
        Some(since) => Some(format!(
            "The endpoint is online and has taken nothing from its queue since {since:.0}: start it again"
        )),
        None if consuming || online || counters.waiting + counters.taken == 0 => None,
        None => match endpoint.manager {
            Some(manager) if !app.dispatch.reads_commands(manager) => {
                Some("Its tasks wait until its manager is online".to_owned())
            }
            Some(_) => app.supervisor.last_failure(id),
            None => (counters.waiting > 0).then(|| "Its tasks wait until it is online".to_owned()),
        },
    };
    let state = EndpointState {
        consuming,
        notice,
        tasks: TaskCounts {
            waiting: counters.waiting,
            taken: counters.taken,
            succeeded: counters.succeeded,
            failed: counters.failed,
            late: counters.late,
        },
    };
    Ok(Json(Status { status, details: app.presence.state(id), farcall: Some(state) }))
}
