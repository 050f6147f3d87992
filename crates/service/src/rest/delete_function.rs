//! `DELETE /v2/functions/{id}`: deletes a function. Its tasks that were not sent to an endpoint yet end with an error.

use axum::Json;
use axum::extract::{Path, State};
use wire::FunctionId;
use wire::rest::Deleted;
use wire::rest::error::Code;

use super::App;
use super::caller::Caller;
use super::route::{Method, Route};
use crate::http::failure::Failure;
use crate::permissions::{self, Permission};
use store::DeleteFunction;

pub(super) const ROUTE: Route = Route {
    refusals: &[Code::FunctionNotFound, Code::FunctionAccessForbidden],
    ..Route::new(
        Method::Delete,
        "/v2/functions/{id}",
        "delete_function",
        "Deleted",
        "Delete a function of one's own",
    )
};

pub(super) async fn delete(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<Json<Deleted>, Failure> {
    let id: FunctionId = super::id(&id)?;
    let known = app.store.function_access([id].into_iter()).await?;
    let access = *known.get(&id).ok_or_else(|| Failure::unknown_function(id))?;
    let groups = super::groups(&app, caller, [access].iter()).await?;
    match permissions::delete(access, caller, &groups) {
        Permission::Granted => {}
        Permission::Forbidden => return Err(Failure::forbidden_function(id)),
        Permission::Hidden => return Err(Failure::unknown_function(id)),
    }
    app.store.write(DeleteFunction(id)).await?;
    app.dispatch.function_deleted(id);
    Ok(Json(Deleted::default()))
}
