//! `GET /v3/endpoints/{id}/user_endpoints`: what a manager has started, for those who manage it. Farcall's.
//!
//! It names the owners and says how the user endpoints are. What they run with stays their owners'.

use axum::extract::{Path, State};
use axum::response::Response;
use serde::Deserialize;
use wire::EndpointId;
use wire::json::FreeForm;
use wire::rest::endpoint::{Presence, UserEndpoint};
use wire::rest::error::Code;

use super::App;
use super::caller::Caller;
use super::route::{Method, Route};
use crate::clock;
use crate::http::failure::Failure;
use store::Which;

/// The most that are listed.
const LISTED: usize = 10_000;
/// The most that is told of a reason, in characters.
const LONGEST_REASON: usize = 1_000;

pub(super) const ROUTE: Route = Route {
    refusals: &[Code::EndpointNotFound, Code::EndpointAccessForbidden],
    ..Route::new(
        Method::Get,
        "/v3/endpoints/{id}/user_endpoints",
        "list_user_endpoints",
        "UserEndpoints",
        "Which user endpoints a manager has started, whose they are, and how they are",
    )
};

pub(super) async fn list(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let id: EndpointId = super::id(&id)?;
    super::managed(&app, id, caller).await?;
    let now = clock::now();
    let started = app.store.endpoint_summaries(Which::StartedBy(id), LISTED).await?;
    let listed: Vec<_> = started
        .into_iter()
        .map(|it| UserEndpoint {
            uuid: it.id,
            name: it.name,
            owner: it.owner,
            owner_name: it.owner_name,
            status: if app.presence.online(it.id, now) { Presence::Online } else { Presence::Offline },
            last_failure: reason(&app.presence.state(it.id)).or_else(|| app.supervisor.last_failure(it.id)),
            waiting: it.waiting,
            taken: it.taken,
        })
        .collect();
    app.unread_answers.json(caller, &listed)
}

/// Why a user endpoint could not be started, by its last report.
fn reason(state: &FreeForm) -> Option<String> {
    #[derive(Deserialize)]
    struct Report {
        error: Option<String>,
    }
    Some(state.read::<Report>().ok()?.error?.chars().take(LONGEST_REASON).collect())
}
