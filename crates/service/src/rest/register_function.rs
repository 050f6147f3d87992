//! `POST /v3/functions`.

use axum::Json;
use axum::extract::{Request, State};
use wire::FunctionId;
use wire::rest::error::Code;
use wire::rest::function::{Register, Registered};

use super::App;
use super::caller::Caller;
use super::failure::Failure;
use crate::ambient;
use crate::store::{AddFunction, Function};

/// The most that a function's name and description may measure.
const NAME_LIMIT: usize = 1 << 10;
const DESCRIPTION_LIMIT: usize = 1 << 20;

pub(super) async fn register(
    State(app): State<App>,
    Caller(caller): Caller,
    request: Request,
) -> Result<Json<Registered>, Failure> {
    let body = app.room.read(request, wire::rest::LIMIT).await?;
    let wanted: Register<'_> = wire::json::decode(&body.bytes, wire::rest::LIMIT)?;
    if wanted.ha_endpoint_id.is_some() {
        return Err(Failure::not_served("ha_endpoint_id"));
    }
    if wanted.group.is_some() {
        return Err(Failure::not_served("group"));
    }
    if wanted.function_name.is_empty() || wanted.function_name.len() > NAME_LIMIT {
        return Err(Failure::new(Code::RequestMalformed, "function_name: must have 1 to 1024 bytes"));
    }
    if wanted.description.as_ref().is_some_and(|text| text.len() > DESCRIPTION_LIMIT) {
        return Err(Failure::new(Code::RequestMalformed, "description: too long"));
    }
    let source = wanted.is_source();
    let code = wanted.function_code.into_string();
    let code = if source { wire::buffer::from_source(&wanted.function_name, &code) } else { code };
    if wire::buffer::split(&code).map(|buffers| buffers.len()) != Ok(1) {
        return Err(Failure::new(Code::RequestMalformed, "function_code: not one packed buffer"));
    }
    let meta = wanted.meta.unwrap_or_default();
    let id = FunctionId::from_uuid(ambient::random_id());
    app.store
        .write(AddFunction(Function {
            id,
            owner: caller,
            name: wanted.function_name,
            code,
            description: wanted.description,
            public: wanted.public.unwrap_or(false),
            // Source runs on any interpreter; everything else may hold code of the one that packed it.
            python: meta.python_version.clone().filter(|_| !source),
            metadata: meta,
            created: ambient::now(),
        }))
        .await?;
    Ok(Json(Registered { function_uuid: id, ha_warning: None }))
}
