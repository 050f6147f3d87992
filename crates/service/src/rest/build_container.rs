//! `POST /v2/containers/build` and `GET /v2/containers/build/{id}`, for SDKs up to 4.5: this service builds no
//! containers, and says so.

use axum::Json;
use axum::extract::{Path, Request, State};
use wire::ContainerId;
use wire::rest::container::{Build, BuildStatus, Registered};
use wire::rest::error::Code;

use super::App;
use super::caller::Caller;
use super::route::{Method, Route};
use crate::http::failure::Failure;

pub(super) const BUILD: Route = Route {
    body: Some("BuildContainer"),
    refusals: &[Code::SemanticallyInvalid],
    ..Route::new(
        Method::Post,
        "/v2/containers/build",
        "build_container",
        "RegisteredContainer",
        "Refused: this service builds no containers",
    )
};

pub(super) const STATUS: Route = Route {
    refusals: &[Code::ContainerNotFound],
    ..Route::new(
        Method::Get,
        "/v2/containers/build/{id}",
        "get_container_build",
        "ContainerBuild",
        "How a build goes: there are none",
    )
};

pub(super) async fn build(
    State(app): State<App>,
    Caller(_): Caller,
    request: Request,
) -> Result<Json<Registered>, Failure> {
    let body = app.bodies.read(request, app.limits.body_bytes).await?;
    let _: Build = wire::json::decode(&body.bytes, app.limits.body_bytes)?;
    Err(Failure::new(Code::SemanticallyInvalid, "containers/build: this service builds no containers"))
}

pub(super) async fn status(Caller(_): Caller, Path(id): Path<String>) -> Result<Json<BuildStatus>, Failure> {
    let id: ContainerId = super::id(&id)?;
    Err(Failure::unknown_container(id))
}
