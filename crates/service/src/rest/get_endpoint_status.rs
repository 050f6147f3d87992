//! `GET /v2/endpoints/{id}/status`.

use axum::Json;
use axum::extract::{Path, State};
use wire::EndpointId;
use wire::json::FreeForm;
use wire::rest::endpoint::{Presence, Status};

use super::App;
use super::caller::Caller;
use super::failure::Failure;
use crate::ambient;
use crate::rules::{self, Verdict};

pub(super) async fn status(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<Json<Status>, Failure> {
    let id: EndpointId = super::id(&id)?;
    let endpoint = app.store.endpoint(id).await?.filter(|it| rules::see(it, caller) == Verdict::Yes);
    let endpoint = endpoint.ok_or_else(|| Failure::unknown_endpoint(id))?;
    let online = app.presence.online(id, ambient::now());
    // The state names users, hosts and the whole configuration.
    let managed = rules::manage(&endpoint, caller) == Verdict::Yes;
    Ok(Json(Status {
        status: if online { Presence::Online } else { Presence::Offline },
        details: if managed { app.presence.state(id) } else { FreeForm::default() },
    }))
}
