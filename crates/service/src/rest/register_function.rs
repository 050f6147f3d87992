//! `POST /v3/functions`: registers a function.

use axum::Json;
use axum::extract::{Request, State};
use wire::FunctionId;
use wire::rest::error::Code;
use wire::rest::function::{Register, Registered};

use super::App;
use super::caller::Caller;
use super::route::{Method, Route};
use crate::clock;
use crate::http::failure::Failure;
use crate::permissions::{self, Permission};
use crate::random;
use store::{AddFunction, Function};

/// The most that a function's name and description may measure.
const NAME_LIMIT: usize = 1 << 10;
const DESCRIPTION_LIMIT: usize = 1 << 20;
/// The most that a version or an identifier may measure.
const META_LIMIT: usize = 256;

pub(super) const ROUTE: Route = Route {
    body: Some("RegisterFunction"),
    refusals: &[Code::SemanticallyInvalid, Code::AuthGroupNotFound],
    ..Route::new(
        Method::Post,
        "/v3/functions",
        "register_function",
        "RegisteredFunction",
        "Register a function",
    )
};

pub(super) async fn register(
    State(app): State<App>,
    Caller(caller): Caller,
    request: Request,
) -> Result<Json<Registered>, Failure> {
    let body = app.bodies.read(request, app.limits.body_bytes).await?;
    let wanted: Register<'_> = wire::json::decode(&body.bytes, app.limits.body_bytes)?;
    if wanted.ha_endpoint_id.is_some() {
        return Err(Failure::not_served("ha_endpoint_id"));
    }
    if let Some(group) = wanted.group {
        let groups = app.identity.groups_of(caller).await?;
        if permissions::share(group, &groups) != Permission::Granted {
            return Err(Failure::unknown_share(group));
        }
    }
    if wanted.function_name.is_empty() || wanted.function_name.len() > NAME_LIMIT {
        return Err(Failure::new(Code::RequestMalformed, "function_name: must have 1 to 1024 bytes"));
    }
    if wanted.description.as_ref().is_some_and(|text| text.len() > DESCRIPTION_LIMIT) {
        return Err(Failure::new(Code::RequestMalformed, "description: too long"));
    }
    super::check_storable([
        ("function_name", wanted.function_name.as_str()),
        ("description", wanted.description.as_deref().unwrap_or_default()),
    ])?;
    let source = wanted.is_source();
    let code = wanted.function_code.into_string();
    let code = if source { wire::buffer::from_source(&wanted.function_name, &code) } else { code };
    if wire::buffer::split(&code).map(|buffers| buffers.len()) != Ok(1) {
        return Err(Failure::new(Code::RequestMalformed, "function_code: not one packed buffer"));
    }
    let meta = wanted.meta.unwrap_or_default();
    super::check_storable([
        ("function_code", code.as_str()),
        ("meta.python_version", meta.python_version.as_deref().unwrap_or_default()),
    ])?;
    let texts = [&meta.python_version, &meta.sdk_version, &meta.serde_identifier];
    if texts.into_iter().flatten().any(|text| text.len() > META_LIMIT) {
        let message = format!("meta: a text has more than {META_LIMIT} bytes");
        return Err(Failure::new(Code::RequestMalformed, message));
    }
    let id = FunctionId::from_uuid(random::random_id());
    app.store
        .write(AddFunction(Function {
            id,
            owner: caller,
            name: wanted.function_name,
            code,
            description: wanted.description,
            public: wanted.public.unwrap_or(false),
            group: wanted.group,
            // Source runs on any interpreter; everything else may hold code of the one that packed it.
            python: meta.python_version.clone().filter(|_| !source),
            metadata: meta,
            created: clock::now(),
        }))
        .await?;
    Ok(Json(Registered { function_uuid: id, ha_warning: None }))
}
