//! `POST /v3/endpoints/{id}/lock`, and `/v2` for older SDKs: stops an endpoint remotely. Its connections and credentials end,
//! and for a time nobody may register it. Its tasks wait.

use axum::Json;
use axum::extract::{Path, State};
use wire::EndpointId;
use wire::rest::endpoint::Locked;
use wire::rest::error::Code;

use super::App;
use super::caller::Caller;
use super::route::{Method, Route};
use crate::clock;
use crate::http::failure::Failure;

const REFUSALS: &[Code] = &[Code::EndpointNotFound, Code::EndpointAccessForbidden];

pub(super) const ROUTE: Route = Route {
    refusals: REFUSALS,
    ..Route::new(
        Method::Post,
        "/v3/endpoints/{id}/lock",
        "lock_endpoint",
        "Locked",
        "Stop an endpoint from afar and keep it from coming back for a time",
    )
};

/// As SDKs up to 3.9 ask for it.
pub(super) const OLD_ROUTE: Route = Route {
    refusals: REFUSALS,
    ..Route::new(
        Method::Post,
        "/v2/endpoints/{id}/lock",
        "lock_endpoint_v2",
        "Locked",
        "As `lock_endpoint`, for SDKs up to 3.9",
    )
};

pub(super) async fn lock(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<Json<Locked>, Failure> {
    let id: EndpointId = super::id(&id)?;
    super::managed(&app, id, caller).await?;
    let until = clock::now() + app.limits.lock();
    app.management(caller).lock(id, until).await?;
    let until = until.strftime("%Y-%m-%dT%H:%M:%S.%6f").to_string();
    Ok(Json(Locked { endpoint_id: id, lock_expiration_timestamp: until }))
}
