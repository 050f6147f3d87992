//! `GET /v2/functions/{id}`.

use axum::Json;
use axum::extract::{Path, State};
use wire::FunctionId;
use wire::rest::function::Function;
use wire::text::Text;

use super::App;
use super::caller::Caller;
use super::failure::Failure;
use crate::rules::{self, Verdict};

pub(super) async fn get(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<Json<Function<'static>>, Failure> {
    let id: FunctionId = super::id(&id)?;
    let function =
        app.store.function(id).await?.filter(|it| rules::call(it.access(), caller) == Verdict::Yes);
    let function = function.ok_or_else(|| Failure::unknown_function(id))?;
    Ok(Json(Function {
        function_uuid: function.id,
        function_name: function.name,
        function_code: Text::plain(function.code),
        description: function.description,
        metadata: Some(function.metadata),
    }))
}
