//! The HTTP routes of the compute service, one file per route.
//!
//! A route identifies the caller ([`caller`]), reads the body within limits ([`body`]), checks
//! [permissions], and answers or [refuses](crate::http::failure). What isn't served has no route.

mod batch_status;
mod body;
mod build_container;
mod caller;
mod delete_endpoint;
mod delete_function;
mod drop_tasks;
mod get_allowed_functions;
mod get_container;
mod get_endpoint;
mod get_endpoint_status;
mod get_function;
mod get_result_connection;
mod get_task;
mod get_task_group;
mod list_endpoints;
mod list_user_endpoints;
mod lock_endpoint;
pub mod openapi;
mod register_container;
mod register_endpoint;
mod register_function;
mod route;
mod stream;
mod submit;
mod submit_answers;
mod task_document;
mod unlock_endpoint;
mod unread_answers;
mod version;

use std::str::FromStr;

use axum::Router;
use axum::routing::{MethodRouter, get};
use wire::rest::error::Code;
use wire::{EndpointId, GroupId, IdentityId};

pub use body::BodyRoom;
pub use get_result_connection::ResultCredentials;
use route::Route;
pub use submit_answers::SubmitAnswers;
pub use unread_answers::UnreadAnswers;

use crate::clock;
use crate::dispatch::Dispatch;
use crate::endpoint_management::EndpointManagement;
use crate::http::broker_address::BrokerAddress;
use crate::http::failure::Failure;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::permissions::{self, Permission};
use crate::tasks::presence::Presence;
use crate::user_endpoint::Starts;
use crate::user_endpoint::supervisor::Supervisor;
use identity::Identity;
use identity::audit::Initiator;
use identity::fair_shares::Shares;
use identity::rates::RateLimiter;
use store::{Endpoint, FunctionAccess, Store, StoreError};

/// What the routes need of the service. Clones share it.
#[derive(Clone, Debug)]
pub struct App {
    pub store: Store,
    pub identity: Identity,
    pub presence: Presence,
    pub dispatch: Dispatch,
    pub starts: Starts,
    pub bodies: BodyRoom,
    /// How many requests each identity sends.
    pub rates: RateLimiter<IdentityId>,
    /// How many endpoints each identity creates. Something is stored for good of each, also once it is deleted.
    pub new_endpoints: RateLimiter<IdentityId>,
    /// Requests in progress, by their callers.
    pub requests_at_once: Shares<IdentityId>,
    pub submit_answers: SubmitAnswers,
    pub unread_answers: UnreadAnswers,
    pub result_credentials: ResultCredentials,
    pub supervisor: Supervisor,
    pub limits: Limits,
    /// The broker's address, as clients see it.
    pub amqp: BrokerAddress,
    pub metrics: Metrics,
}

impl App {
    /// Manages endpoints on behalf of `caller`.
    fn management(&self, caller: IdentityId) -> EndpointManagement<'_> {
        EndpointManagement {
            store: &self.store,
            dispatch: Some(&self.dispatch),
            by: Initiator::Identity(caller),
        }
    }
}

/// Every route, for the router and the OpenAPI document.
fn routes() -> Vec<(Route, MethodRouter<App>)> {
    vec![
        version::ROUTE.served(version::version),
        register_function::ROUTE.served(register_function::register),
        get_function::ROUTE.served(get_function::get),
        delete_function::ROUTE.served(delete_function::delete),
        submit::ROUTE.served(submit::submit),
        get_task::ROUTE.served(get_task::get),
        batch_status::ROUTE.served(batch_status::batch_status),
        get_task_group::ROUTE.served(get_task_group::get),
        get_result_connection::ROUTE.served(get_result_connection::url),
        register_endpoint::CREATE.served(register_endpoint::create),
        register_endpoint::UPDATE.served(register_endpoint::update),
        list_endpoints::ROUTE.served(list_endpoints::list),
        list_user_endpoints::ROUTE.served(list_user_endpoints::list),
        get_endpoint::ROUTE.served(get_endpoint::get),
        get_endpoint_status::ROUTE.served(get_endpoint_status::status),
        delete_endpoint::ROUTE.served(delete_endpoint::delete),
        lock_endpoint::ROUTE.served(lock_endpoint::lock),
        lock_endpoint::OLD_ROUTE.served(lock_endpoint::lock),
        unlock_endpoint::ROUTE.served(unlock_endpoint::unlock),
        drop_tasks::ROUTE.served(drop_tasks::drop_tasks),
        get_allowed_functions::ROUTE.served(get_allowed_functions::get),
        register_container::ROUTE.served(register_container::register),
        get_container::ROUTE.served(get_container::get),
        build_container::BUILD.served(build_container::build),
        build_container::STATUS.served(build_container::status),
    ]
}

pub fn router(app: App) -> Router {
    let routes = routes().into_iter();
    let router = routes.fold(Router::new(), |router, (route, handler)| router.route(route.path, handler));
    router.route(openapi::PATH, get(openapi::document)).with_state(app)
}

/// The endpoint, if `caller` may see it. The service's administrators see each.
async fn seen(app: &App, id: EndpointId, caller: IdentityId) -> Result<Endpoint, Failure> {
    let unknown = || Failure::unknown_endpoint(id);
    let endpoint = app.store.endpoint(id).await?.ok_or_else(unknown)?;
    let seen = permissions::see(&endpoint, caller) == Permission::Granted
        || app.identity.administers(caller, clock::now()).await?;
    seen.then_some(endpoint).ok_or_else(unknown)
}

/// The endpoint, if `caller` manages it.
async fn managed(app: &App, id: EndpointId, caller: IdentityId) -> Result<Endpoint, Failure> {
    let endpoint = app.store.endpoint(id).await?.ok_or_else(|| Failure::unknown_endpoint(id))?;
    match manage(app, &endpoint, caller).await? {
        Permission::Granted => Ok(endpoint),
        Permission::Forbidden => Err(Failure::forbidden_endpoint(id)),
        Permission::Hidden => Err(Failure::unknown_endpoint(id)),
    }
}

/// May `caller` see how `endpoint` is configured, stop it, or delete it? The service's administrators may.
async fn manage(app: &App, endpoint: &Endpoint, caller: IdentityId) -> Result<Permission, StoreError> {
    match permissions::manage(endpoint, caller) {
        Permission::Granted => Ok(Permission::Granted),
        refused => Ok(match app.identity.administers(caller, clock::now()).await? {
            true => Permission::Granted,
            false => refused,
        }),
    }
}

/// The caller's groups, if permissions depend on them for one of `functions`.
async fn groups<'f>(
    app: &App,
    caller: IdentityId,
    mut functions: impl Iterator<Item = &'f FunctionAccess>,
) -> Result<Vec<GroupId>, StoreError> {
    match functions.any(|&function| permissions::call_needs_groups(function, caller)) {
        true => app.identity.groups_of(caller).await,
        false => Ok(Vec::new()),
    }
}

/// Answers for every path that has no route.
pub async fn nowhere() -> Failure {
    Failure::new(Code::RequestMalformed, "There is no such route").with_status(404)
}

/// Refuses texts that the database cannot store: those with the character NUL, on either database. Each comes with the name of
/// its member in the body.
fn check_storable<'t>(texts: impl IntoIterator<Item = (&'static str, &'t str)>) -> Result<(), Failure> {
    match texts.into_iter().find(|(_, text)| text.contains('\0')) {
        Some((member, _)) => {
            let message = format!("{member}: holds the character NUL (U+0000), which cannot be stored");
            Err(Failure::new(Code::RequestMalformed, message))
        }
        None => Ok(()),
    }
}

/// Parses an id in a path.
fn id<T: FromStr>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(100).collect();
        Failure::new(Code::InvalidUuid, format!("{shown:?} is not a UUID"))
    })
}
