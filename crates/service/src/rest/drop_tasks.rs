//! `DELETE /v3/endpoints/{id}/tasks`: ends the waiting tasks of an endpoint, with an error that says who dropped them.

use axum::Json;
use axum::extract::{Path, State};
use wire::EndpointId;
use wire::rest::endpoint::Dropped;
use wire::rest::error::Code;

use super::App;
use super::caller::Caller;
use super::route::{Method, Route};
use crate::http::failure::Failure;

pub(super) const ROUTE: Route = Route {
    refusals: &[Code::EndpointNotFound, Code::EndpointAccessForbidden],
    ..Route::new(
        Method::Delete,
        "/v3/endpoints/{id}/tasks",
        "drop_tasks",
        "Dropped",
        "Drop the tasks that wait for an endpoint: they end with an error",
    )
};

pub(super) async fn drop_tasks(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<Json<Dropped>, Failure> {
    let id: EndpointId = super::id(&id)?;
    super::managed(&app, id, caller).await?;
    let dropped = app.management(caller).drop_waiting(id).await?;
    Ok(Json(Dropped { endpoint_id: id, dropped }))
}
