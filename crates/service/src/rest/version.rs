//! `GET /v2/version`: the service's version, and the oldest clients that it supports. Needs no token.

use axum::Json;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::response::{IntoResponse, Response};
use wire::rest::error::Code;
use wire::rest::version::{self as wire_version, Versions};

use super::route::{Method, Parameter, Route};
use crate::http::failure::Failure;

pub(super) const ROUTE: Route = Route {
    token: false,
    query: &[Parameter { name: "service", summary: "`all` for more than our own version", values: &[] }],
    refusals: &[Code::RequestMalformed],
    ..Route::new(Method::Get, "/v2/version", "get_version", "Version", "What the service is")
};

/// The version of the original's API that this one stands for.
const API: &str = "1.50.0";
/// The oldest releases that are tested against this service.
const OLDEST: &str = "3.8.0";

pub(super) async fn version(
    query: Result<Query<wire_version::Query>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(query) = query.map_err(|error| Failure::new(Code::RequestMalformed, error.body_text()))?;
    if !query.wants_all() {
        return Ok(Json(API).into_response());
    }
    Ok(Json(Versions {
        api: API.to_owned(),
        min_sdk_version: OLDEST.to_owned(),
        min_ep_version: OLDEST.to_owned(),
        git_sha: None,
    })
    .into_response())
}
