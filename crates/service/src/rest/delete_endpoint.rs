//! `DELETE /v2/endpoints/{id}`: deletes an endpoint and ends its connections. Its finished tasks keep their results.

use axum::Json;
use axum::extract::{Path, State};
use wire::EndpointId;
use wire::rest::Deleted;
use wire::rest::error::Code;

use super::App;
use super::caller::Caller;
use super::route::{Method, Route};
use crate::http::failure::Failure;

pub(super) const ROUTE: Route = Route {
    refusals: &[Code::EndpointNotFound, Code::EndpointAccessForbidden],
    ..Route::new(
        Method::Delete,
        "/v2/endpoints/{id}",
        "delete_endpoint",
        "Deleted",
        "Delete an endpoint; its open tasks end",
    )
};

pub(super) async fn delete(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<Json<Deleted>, Failure> {
    let id: EndpointId = super::id(&id)?;
    super::managed(&app, id, caller).await?;
    app.management(caller).delete(id).await?;
    Ok(Json(Deleted::default()))
}
