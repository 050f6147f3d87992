//! `GET /v2/containers/{id}/{type}`, for SDKs up to 4.5.

use axum::Json;
use axum::extract::{Path, State};
use wire::ContainerId;
use wire::rest::container::{Container, ContainerResponse};
use wire::rest::error::Code;

use super::App;
use super::caller::Caller;
use super::route::{Method, Route};
use crate::http::failure::Failure;
use crate::permissions::{self, Permission};

pub(super) const ROUTE: Route = Route {
    refusals: &[Code::ContainerNotFound],
    ..Route::new(
        Method::Get,
        "/v2/containers/{id}/{type}",
        "get_container",
        "Container",
        "A container of one's own",
    )
};

pub(super) async fn get(
    State(app): State<App>,
    Caller(caller): Caller,
    Path((id, kind)): Path<(String, String)>,
) -> Result<Json<ContainerResponse>, Failure> {
    let id: ContainerId = super::id(&id)?;
    let known = app.store.container(id).await?;
    let known =
        known.filter(|it| permissions::container(it, caller) == Permission::Granted && it.kind == kind);
    let known = known.ok_or_else(|| Failure::unknown_container(id))?;
    Ok(Json(ContainerResponse {
        container: Container {
            container_uuid: id,
            name: known.name,
            container_type: known.kind,
            location: known.location,
        },
    }))
}
