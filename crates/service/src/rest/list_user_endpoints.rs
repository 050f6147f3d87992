//! `GET /v3/endpoints/{id}/user_endpoints`: what a manager has started, for those who manage it. Farcall's.
//!
//! It names the owners and says how the user endpoints are. What they run with stays their owners'.

use axum::extract::{Path, State};
use axum::response::Response;
use serde::Deserialize;
use wire::EndpointId;
use wire::json::FreeForm;
use wire::rest::endpoint::{EndReason, Presence, UserEndpoint};
use wire::rest::error::Code;

use super::App;
use super::caller::Caller;
use super::route::{Method, Route};
use crate::clock;
use crate::http::failure::Failure;
use store::{EndpointSummary, Which};

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
        .map(|it| {
            let online = app.presence.online(it.id, now);
            UserEndpoint {
                uuid: it.id,
                status: if online { Presence::Online } else { Presence::Offline },
                last_failure: reason(&app.presence.state(it.id))
                    .or_else(|| app.supervisor.last_failure(it.id)),
                last_end: last_end(&it, !online && app.presence.last_seen(it.id).is_some()),
                name: it.name,
                owner: it.owner,
                owner_name: it.owner_name,
                waiting: it.waiting,
                taken: it.taken,
            }
        })
        .collect();
    app.unread_answers.json(caller, &listed)
}

/// Why it ended last. `lost`: it sent heartbeats, and is offline.
fn last_end(it: &EndpointSummary, lost: bool) -> Option<EndReason> {
    let told = it.last_end.as_ref();
    if lost && it.run_since > told.map(|end| end.at) {
        let reason = "It sent no last report: it was killed, or its machine or connection was lost";
        return Some(EndReason { reason: reason.to_owned(), at: None });
    }
    told.map(|end| EndReason { reason: end.reason.clone(), at: Some(format!("{:.0}", end.at)) })
}

/// Why a user endpoint could not be started, by its last report.
fn reason(state: &FreeForm) -> Option<String> {
    #[derive(Deserialize)]
    struct Report {
        error: Option<String>,
    }
    Some(state.read::<Report>().ok()?.error?.chars().take(LONGEST_REASON).collect())
}
