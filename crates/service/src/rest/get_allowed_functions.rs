//! `GET /v3/endpoints/{id}/allowed_functions`: the functions that an endpoint runs, for all who may see it.

use axum::Json;
use axum::extract::{Path, State};
use wire::EndpointId;
use wire::rest::endpoint::AllowedFunctions;
use wire::rest::error::Code;

use super::App;
use super::caller::Caller;
use super::route::{Method, Route};
use crate::http::failure::Failure;

pub(super) const ROUTE: Route = Route {
    refusals: &[Code::EndpointNotFound],
    ..Route::new(
        Method::Get,
        "/v3/endpoints/{id}/allowed_functions",
        "get_allowed_functions",
        "AllowedFunctions",
        "Which functions an endpoint runs",
    )
};

pub(super) async fn get(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<Json<AllowedFunctions>, Failure> {
    let id: EndpointId = super::id(&id)?;
    let endpoint = super::seen(&app, id, caller).await?;
    Ok(Json(AllowedFunctions {
        endpoint_id: id,
        restricted: endpoint.allowed_functions.is_some(),
        functions: endpoint.allowed_functions.unwrap_or_default(),
    }))
}
