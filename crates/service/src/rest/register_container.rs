//! `POST /v2/containers`, for SDKs up to 4.5.

use axum::Json;
use axum::extract::{Request, State};
use wire::ContainerId;
use wire::rest::container::{Register, Registered};
use wire::rest::error::Code;

use super::App;
use super::caller::Caller;
use super::route::{Method, Route};
use crate::clock;
use crate::http::failure::Failure;
use crate::random;
use store::{AddContainer, Container};

/// The most that any text of it may measure.
const TEXT_LIMIT: usize = 4 << 10;

pub(super) const ROUTE: Route = Route {
    body: Some("RegisterContainer"),
    ..Route::new(
        Method::Post,
        "/v2/containers",
        "register_container",
        "RegisteredContainer",
        "Register a container",
    )
};

pub(super) async fn register(
    State(app): State<App>,
    Caller(caller): Caller,
    request: Request,
) -> Result<Json<Registered>, Failure> {
    let body = app.bodies.read(request, app.limits.body_bytes).await?;
    let wanted: Register = wire::json::decode(&body.bytes, app.limits.body_bytes)?;
    let texts = [
        ("name", &wanted.name),
        ("location", &wanted.location),
        ("description", &wanted.description),
        ("type", &wanted.container_type),
    ];
    if let Some((member, _)) = texts.iter().find(|(_, text)| text.len() > TEXT_LIMIT) {
        let message = format!("{member}: more than {TEXT_LIMIT} bytes");
        return Err(Failure::new(Code::RequestMalformed, message));
    }
    super::check_storable(texts.map(|(member, text)| (member, text.as_str())))?;
    if wanted.location.is_empty() || wanted.container_type.is_empty() {
        return Err(Failure::new(Code::RequestMalformed, "location, type: must not be empty"));
    }
    let id = ContainerId::from_uuid(random::random_id());
    app.store
        .write(AddContainer(Container {
            id,
            owner: caller,
            name: wanted.name,
            kind: wanted.container_type,
            location: wanted.location,
            description: wanted.description,
            created: clock::now(),
        }))
        .await?;
    Ok(Json(Registered { container_id: id }))
}
