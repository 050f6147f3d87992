//! `GET /v2/functions/{id}`: a function with its code.

use axum::extract::{Path, State};
use axum::response::Response;
use wire::FunctionId;
use wire::Text;
use wire::rest::error::Code;
use wire::rest::function::Function;

use super::App;
use super::caller::Caller;
use super::route::{Method, Route};
use crate::http::failure::Failure;
use crate::permissions::{self, Permission};

pub(super) const ROUTE: Route = Route {
    refusals: &[Code::FunctionNotFound],
    ..Route::new(
        Method::Get,
        "/v2/functions/{id}",
        "get_function",
        "Function",
        "A function that one may call",
    )
};

pub(super) async fn get(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let id: FunctionId = super::id(&id)?;
    let function = app.store.function(id).await?.ok_or_else(|| Failure::unknown_function(id))?;
    let groups = super::groups(&app, caller, [function.access()].iter()).await?;
    if permissions::call(function.access(), caller, &groups) != Permission::Granted {
        return Err(Failure::unknown_function(id));
    }
    app.unread_answers.json(
        caller,
        &Function {
            function_uuid: function.id,
            function_name: function.name,
            function_code: Text::plain(function.code),
            description: function.description,
            metadata: Some(function.metadata),
        },
    )
}
