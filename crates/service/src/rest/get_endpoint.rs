//! `GET /v2/endpoints/{id}`. Only those who manage the endpoint see its configuration.

use axum::extract::{Path, State};
use axum::response::Response;
use wire::EndpointId;
use wire::rest::endpoint::{Endpoint, Metadata};
use wire::rest::error::Code;

use super::App;
use super::caller::Caller;
use super::route::{Method, Route};
use crate::http::failure::Failure;
use crate::permissions::{self, Permission};
use store::Endpoint as Known;

pub(super) const ROUTE: Route = Route {
    refusals: &[Code::EndpointNotFound],
    ..Route::new(
        Method::Get,
        "/v2/endpoints/{id}",
        "get_endpoint",
        "Endpoint",
        "What is known of an endpoint",
    )
};

pub(super) async fn get(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let id: EndpointId = super::id(&id)?;
    let endpoint = super::seen(&app, id, caller).await?;
    // Who may use a manager needs the schema of its user endpoints' configuration.
    let usable = endpoint.is_manager && permissions::submit(&endpoint, caller) == Permission::Granted;
    let managed = super::manage(&app, &endpoint, caller).await? == Permission::Granted;
    app.unread_answers.json(caller, &document(&app, endpoint, usable, managed).await?)
}

/// The document of `endpoint`: with a manager's schema if the caller may use it, with its configuration if they manage it.
pub(super) async fn document(
    app: &App,
    endpoint: Known,
    usable: bool,
    managed: bool,
) -> Result<Endpoint, Failure> {
    let metadata = match usable || managed {
        true => app.store.endpoint_metadata(endpoint.id).await?,
        false => Metadata::default(),
    };
    let schema = metadata.user_config_schema.clone().filter(|_| usable || managed);
    let private = if managed { metadata } else { Metadata::default() };
    Ok(Endpoint {
        uuid: endpoint.id,
        name: endpoint.name,
        display_name: endpoint.display_name,
        multi_user: endpoint.multi_user,
        public: endpoint.public,
        endpoint_config: private.endpoint_config,
        user_config_template: private.user_config_template,
        user_config_schema: schema,
        description: None,
        hostname: private.hostname,
        local_user: private.local_user,
        ip_address: None,
        endpoint_version: private.endpoint_version,
        sdk_version: None,
        subscription_uuid: None,
    })
}
