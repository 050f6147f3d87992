//! `DELETE /v3/endpoints/{id}/lock`: lifts a lock early. Only administrators of the service may: they may have locked the
//! endpoint against its owner.

use axum::Json;
use axum::extract::{Path, State};
use wire::EndpointId;
use wire::rest::endpoint::Unlocked;
use wire::rest::error::Code;

use super::App;
use super::caller::Caller;
use super::route::{Method, Route};
use crate::clock;
use crate::http::failure::Failure;

pub(super) const ROUTE: Route = Route {
    refusals: &[Code::EndpointNotFound, Code::EndpointAccessForbidden],
    ..Route::new(
        Method::Delete,
        "/v3/endpoints/{id}/lock",
        "unlock_endpoint",
        "Unlocked",
        "Lift the lock of an endpoint; for administrators of the service",
    )
};

pub(super) async fn unlock(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<Json<Unlocked>, Failure> {
    let id: EndpointId = super::id(&id)?;
    super::managed(&app, id, caller).await?;
    if !app.identity.administers(caller, clock::now()).await? {
        return Err(Failure::forbidden_endpoint(id));
    }
    app.management(caller).unlock(id).await?;
    Ok(Json(Unlocked { endpoint_id: id }))
}
