//! `GET /v2/endpoints`: one's own; with `role=any` those that one administers and those that are public, too.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use wire::rest::endpoint::{Listed, Query as Wanted, Role};
use wire::rest::error::Code;

use super::App;
use super::caller::Caller;
use super::failure::Failure;
use super::route::{Method, Parameter, Route};
use crate::rules::{self, Verdict};

/// Endpoints in one answer.
const LISTED: usize = 10_000;

pub(super) const ROUTE: Route = Route {
    query: &[Parameter {
        name: "role",
        summary: "`owner`: one's own; `any`: those that one may see, too",
        values: &["owner", "any"],
    }],
    refusals: &[Code::RequestMalformed],
    ..Route::new(Method::Get, "/v2/endpoints", "list_endpoints", "ListedEndpoints", "The endpoints one knows")
};

pub(super) async fn list(
    State(app): State<App>,
    Caller(caller): Caller,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Vec<Listed>>, Failure> {
    let Query(wanted) = query.map_err(|error| Failure::new(Code::RequestMalformed, error.body_text()))?;
    let role = wanted.role.unwrap_or_default();
    let endpoints = app.store.endpoints_of(caller, role == Role::Any, LISTED).await?;
    let listed = endpoints.into_iter().filter(|endpoint| match role {
        Role::Owner => endpoint.owner == caller,
        Role::Any => rules::see(endpoint, caller) == Verdict::Yes,
    });
    Ok(Json(
        listed
            .map(|endpoint| Listed {
                uuid: endpoint.id,
                name: endpoint.name,
                display_name: endpoint.display_name,
                owner: endpoint.owner,
            })
            .collect(),
    ))
}
