//! `POST /v3/endpoints` and `PUT /v3/endpoints/{id}`: registers an endpoint, and answers where its queues are.
//!
//! A `PUT` with an id that never existed creates the endpoint, so that endpoints keep their ids at a service that was set up
//! anew. The id of a deleted endpoint stays its owner's. Before the answer, the service closes the connections of earlier
//! credentials, which an earlier run of the endpoint may have left. If the endpoint is connected and sent a heartbeat lately,
//! it still runs, and the registration gets 409.

use axum::Json;
use axum::extract::{Extension, Path, Request, State};
use axum::response::{IntoResponse, Response};
use wire::queue::Registration;
use wire::rest::endpoint::{Change, Register};
use wire::rest::error::Code;
use wire::{EndpointId, IdentityId};

use super::App;
use super::caller::CallerToken;
use super::route::{Method, Route};
use crate::clock;
use crate::dispatch::broker_user::ConnectionUrl;
use crate::http::failure::Failure;
use crate::permissions::{self, Permission};
use crate::random;
use crate::user_endpoint;
use identity::http::arrival::Arrival;
use store::secret::{self, Hash};
use store::{ChangeEndpoint, Endpoint, Holder, RegisterEndpoint, RegistrationResult};

const REFUSALS: &[Code] = &[
    Code::SemanticallyInvalid,
    Code::EndpointNotFound,
    Code::EndpointAccessForbidden,
    Code::ResourceConflict,
    Code::ResourceLocked,
];

pub(super) const CREATE: Route = Route {
    body: Some("RegisterEndpoint"),
    refusals: REFUSALS,
    ..Route::new(
        Method::Post,
        "/v3/endpoints",
        "register_endpoint",
        "Registration",
        "Register a new endpoint",
    )
};

pub(super) const UPDATE: Route = Route {
    body: Some("UpdateEndpoint"),
    refusals: REFUSALS,
    ..Route::new(
        Method::Put,
        "/v3/endpoints/{id}",
        "register_endpoint_again",
        "UpdatedEndpoint",
        "Register an endpoint again; without `endpoint_name`, change its details",
    )
};

/// The most that an endpoint's names may measure, in characters.
const NAME_LIMIT: usize = 128;
/// The most functions that an allow-list may name, and identities that may administer.
const LIST_LIMIT: usize = 10_000;

pub(super) async fn create(
    State(app): State<App>,
    by: CallerToken,
    Extension(arrival): Extension<Arrival>,
    request: Request,
) -> Result<Json<Registration>, Failure> {
    let wanted = read(&app, request).await?;
    may_make_another(&app, by.token.identity)?;
    let id = EndpointId::from_uuid(random::random_id());
    register(&app, wanted, id, &by, arrival).await
}

pub(super) async fn update(
    State(app): State<App>,
    by: CallerToken,
    Path(id): Path<String>,
    Extension(arrival): Extension<Arrival>,
    request: Request,
) -> Result<Response, Failure> {
    let id: EndpointId = super::id(&id)?;
    let caller = by.token.identity;
    let body = app.bodies.read(request, app.limits.body_bytes).await?;
    let change: Change = wire::json::decode(&body.bytes, app.limits.body_bytes)?;
    if change.endpoint_name.is_none() {
        return change_endpoint(&app, id, caller, change).await;
    }
    let wanted = judge(wire::json::decode(&body.bytes, app.limits.body_bytes)?)?;
    drop(body);
    if let Some(known) = app.store.endpoint(id).await? {
        match permissions::register(&known, caller) {
            Permission::Granted => {}
            Permission::Forbidden => return Err(Failure::forbidden_endpoint(id)),
            Permission::Hidden => return Err(Failure::unknown_endpoint(id)),
        }
        if known.manager.is_some() {
            let message = format!("Endpoint {id} is a user endpoint: its manager starts it");
            return Err(Failure::new(Code::ResourceConflict, message));
        }
        if app.presence.online(id, clock::now()) && app.dispatch.consumes(id) {
            let message =
                format!("Endpoint {id} is connected: stop it where it runs before it is started again");
            return Err(Failure::new(Code::ResourceConflict, message));
        }
    } else if user_endpoint::id::is_one(id) {
        // Others can compute it before it is there; only its manager's start makes it.
        return Err(Failure::unknown_endpoint(id));
    } else {
        may_make_another(&app, caller)?;
    }
    register(&app, wanted, id, &by, arrival).await.map(IntoResponse::into_response)
}

/// Refuses if `caller` creates endpoints too fast, deleted ones included.
fn may_make_another(app: &App, caller: IdentityId) -> Result<(), Failure> {
    app.new_endpoints.take(caller, clock::now()).map_err(Failure::too_many_requests)
}

/// A `PUT` without `endpoint_name` changes the details of an existing endpoint. Answers the endpoint.
async fn change_endpoint(
    app: &App,
    id: EndpointId,
    caller: IdentityId,
    change: Change,
) -> Result<Response, Failure> {
    if let Some(member) = change.others.keys().next() {
        let message = format!("endpoint_name: is missing, and without it {member} can't be changed");
        return Err(Failure::new(Code::RequestMalformed, message));
    }
    check_names([("display_name", change.display_name.as_ref())])?;
    check_lists(&[
        change.allowed_functions.as_ref().map_or(0, Vec::len),
        change.admins.as_ref().map_or(0, Vec::len),
    ])?;
    let known = app.store.endpoint(id).await?.ok_or_else(|| Failure::unknown_endpoint(id))?;
    match permissions::register(&known, caller) {
        Permission::Granted => {}
        Permission::Forbidden => return Err(Failure::forbidden_endpoint(id)),
        Permission::Hidden => return Err(Failure::unknown_endpoint(id)),
    }
    let Change { endpoint_name: _, display_name, public, allowed_functions, admins, others: _ } = change;
    if known.manager.is_some() && (public.is_some() || allowed_functions.is_some() || admins.is_some()) {
        let message =
            format!("Endpoint {id} is a user endpoint: its manager decides all but its display_name");
        return Err(Failure::new(Code::ResourceConflict, message));
    }
    let change =
        ChangeEndpoint { endpoint: id, owner: caller, display_name, public, allowed_functions, admins };
    app.store.write(change).await?;
    let changed = app.store.endpoint(id).await?.ok_or_else(|| Failure::unknown_endpoint(id))?;
    let usable = changed.is_manager;
    app.unread_answers.json(caller, &super::get_endpoint::document(app, changed, usable, true).await?)
}

/// A registration that asks for nothing that this service doesn't have.
struct Wanted(Register);

async fn read(app: &App, request: Request) -> Result<Wanted, Failure> {
    let body = app.bodies.read(request, app.limits.body_bytes).await?;
    judge(wire::json::decode(&body.bytes, app.limits.body_bytes)?)
}

fn judge(wanted: Register) -> Result<Wanted, Failure> {
    let unserved = [
        ("high_assurance", wanted.high_assurance == Some(true)),
        ("authentication_policy", wanted.authentication_policy.is_some()),
        ("subscription_uuid", wanted.subscription_uuid.is_some()),
        // Whoever may become other users does so for user endpoints, which need a template.
        (
            "multi_user without metadata.user_config_template",
            wanted.multi_user == Some(true) && wanted.metadata.user_config_template.is_none(),
        ),
    ];
    if let Some((member, _)) = unserved.iter().find(|(_, asked)| *asked) {
        return Err(Failure::not_served(member));
    }
    if wanted.endpoint_name.is_empty() {
        return Err(bad_names());
    }
    check_names([
        ("endpoint_name", Some(&wanted.endpoint_name)),
        ("display_name", wanted.display_name.as_ref()),
    ])?;
    check_lists(&[
        wanted.allowed_functions.as_ref().map_or(0, Vec::len),
        wanted.admins.as_ref().map_or(0, Vec::len),
    ])?;
    Ok(Wanted(wanted))
}

fn check_names<const N: usize>(names: [(&'static str, Option<&String>); N]) -> Result<(), Failure> {
    let given = || names.iter().filter_map(|&(member, name)| Some((member, name?.as_str())));
    match given().any(|(_, name)| name.chars().count() > NAME_LIMIT) {
        true => Err(bad_names()),
        false => super::check_storable(given()),
    }
}

fn bad_names() -> Failure {
    let message =
        format!("endpoint_name, display_name: must have at most {NAME_LIMIT} characters, and the former 1");
    Failure::new(Code::RequestMalformed, message)
}

fn check_lists(lengths: &[usize]) -> Result<(), Failure> {
    if lengths.iter().any(|length| *length > LIST_LIMIT) {
        let message = format!("allowed_functions, admins: more than {LIST_LIMIT}");
        return Err(Failure::new(Code::RequestMalformed, message));
    }
    Ok(())
}

async fn register(
    app: &App,
    Wanted(wanted): Wanted,
    id: EndpointId,
    by: &CallerToken,
    arrival: Arrival,
) -> Result<Json<Registration>, Failure> {
    let now = clock::now();
    let broker_at = app.amqp.base(arrival);
    let endpoint = Endpoint {
        id,
        owner: by.token.identity,
        name: wanted.endpoint_name,
        display_name: wanted.display_name,
        multi_user: wanted.multi_user == Some(true),
        public: wanted.public.unwrap_or(false),
        allowed_functions: wanted.allowed_functions,
        admins: wanted.admins.unwrap_or_default(),
        is_manager: wanted.metadata.user_config_template.is_some(),
        created: now,
        manager: None,
        broker_at: Some(broker_at.clone()),
    };
    let secret = secret::fresh();
    let most = app.limits.endpoints_per_identity;
    let command = RegisterEndpoint {
        endpoint,
        metadata: wanted.metadata,
        choices: None,
        client: Some(by.token.client),
        token: Some(by.hash),
        most,
        secret: Hash::of(&secret),
        now,
    };
    let number = match app.store.write(command).await? {
        RegistrationResult::Credential(number) => number,
        RegistrationResult::LockedUntil(until) => return Err(Failure::locked(id, until)),
        // It was another's before it was deleted, or somebody else has taken it since the question above.
        RegistrationResult::OfAnother => return Err(Failure::unknown_endpoint(id)),
        RegistrationResult::Inactive => return Err(Failure::login_ended()),
        RegistrationResult::TooMany => return Err(Failure::too_many_endpoints("endpoints", most)),
    };
    app.dispatch.endpoint_registered(id, number).map_err(|error| {
        tracing::error!(%error, endpoint = %id, "could not declare the queues of an endpoint");
        Failure::unavailable("The broker does not answer; try again later")
    })?;
    let url = ConnectionUrl { holder: Holder::Endpoint(id), number, secret: &secret };
    Ok(Json(Registration::new(id, &url.at(&broker_at))))
}
