//! `POST /v3/endpoints/{id}/submit`: accepts tasks. The answer is sent when they are on disk, and not before.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, Request, State};
use wire::rest::error::Code;
use wire::rest::submit::{Submit as Wanted, Submitted};
use wire::{EndpointId, IdentityId, RequestId, TaskGroupId, TaskId};

use super::App;
use super::caller::Caller;
use super::failure::Failure;
use crate::ambient;
use crate::rules::{self, Verdict};
use crate::store::{Endpoint, NewTask, Submit};
use crate::user_endpoint::core::Outcome;
use crate::user_endpoint::{self, Starter};

/// Tasks in one request.
const TASKS: usize = 100_000;
/// Functions in one request.
const FUNCTIONS: usize = 1_000;
/// One packed payload, in bytes.
const PAYLOAD: usize = 64 << 20;
/// The resource specification, and the list of serializers.
const SPECIFICATION: usize = 64 << 10;

pub(super) async fn submit(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Submitted>, Failure> {
    let id: EndpointId = super::id(&id)?;
    let body = app.room.read(request, wire::rest::SUBMIT_LIMIT).await?;
    let wanted: Wanted<'_> = wire::json::decode(&body.bytes, wire::rest::SUBMIT_LIMIT)?;
    let target = may_submit(&app, id, caller, &wanted).await?;

    let specification = match &wanted.resource_specification {
        None => "null".to_owned(),
        Some(object) => object.as_json().to_owned(),
    };
    let serializers = wanted.result_serializers.clone().unwrap_or_default();
    if specification.len() + serializers.iter().map(String::len).sum::<usize>() > SPECIFICATION {
        let message = "resource_specification, result_serializers: too long";
        return Err(Failure::new(Code::RequestMalformed, message));
    }
    let group = match wanted.task_group_id {
        Some(group) => {
            let known = app.store.group(group).await?.filter(|known| known.owner == caller);
            known.ok_or_else(|| Failure::unknown_group(group))?.id
        }
        None => TaskGroupId::from_uuid(ambient::ordered_id()),
    };

    let id = match target.is_manager() {
        true => user_endpoint(&app, &target, caller, &wanted).await?,
        false => id,
    };
    let mut ids = BTreeMap::new();
    let mut tasks = Vec::with_capacity(wanted.tasks.values().map(Vec::len).sum());
    for (&function, payloads) in &wanted.tasks {
        let made = payloads.iter().map(|payload| {
            let id = TaskId::from_uuid(ambient::ordered_id());
            tasks.push(NewTask { id, function, payload: payload.to_json().into_owned() });
            id
        });
        ids.insert(function, made.collect());
    }
    let command = Submit {
        group,
        owner: caller,
        queue: wanted.create_queue,
        endpoint: id,
        resource_specification: specification,
        result_serializers: serializers,
        tasks,
        now: ambient::now(),
    };
    app.store.write(command).await?;
    app.post.submitted(id);
    Ok(Json(Submitted {
        request_id: RequestId::from_uuid(ambient::random_id()),
        task_group_id: group,
        endpoint_id: id,
        tasks: ids,
        ha_warning: None,
    }))
}

/// The endpoint that `manager` runs for this caller with this configuration, once it takes tasks.
async fn user_endpoint(
    app: &App,
    manager: &Endpoint,
    caller: IdentityId,
    wanted: &Wanted<'_>,
) -> Result<EndpointId, Failure> {
    let config = wanted.user_endpoint_config.clone().unwrap_or_default();
    if config.as_json().len() > SPECIFICATION {
        return Err(Failure::new(Code::RequestMalformed, "user_endpoint_config: too long"));
    }
    let starter = Starter { store: app.store.clone(), post: app.post.clone() };
    let wanted = user_endpoint::Wanted { identity: caller, config, runtime: wanted.user_runtime.clone() };
    starter.ready(manager, wanted).await.map_err(|(id, outcome)| match outcome {
        Outcome::Refused(why) => {
            Failure::new(Code::SemanticallyInvalid, format!("Request payload failed validation: {why}"))
        }
        Outcome::Away => {
            let message = format!("Endpoint {} is not connected: its user endpoints can't start", manager.id);
            Failure::new(Code::ResourceConflict, message)
        }
        Outcome::Silent => {
            let message = format!("User endpoint {id} was to be started by {}, and says nothing", manager.id);
            Failure::new(Code::SemanticallyInvalid, message)
        }
        Outcome::Ready | Outcome::Broken => {
            Failure::unavailable("The user endpoint could not be started; try again later")
        }
    })
}

/// All that can be said against a request before anything is written. It is refused whole, with the item named.
async fn may_submit(
    app: &App,
    id: EndpointId,
    caller: IdentityId,
    wanted: &Wanted<'_>,
) -> Result<Endpoint, Failure> {
    let endpoint = app.store.endpoint(id).await?.ok_or_else(|| Failure::unknown_endpoint(id))?;
    match rules::submit(&endpoint, caller) {
        Verdict::Yes => {}
        Verdict::Forbidden => return Err(Failure::forbidden_endpoint(id)),
        Verdict::Unknown => return Err(Failure::unknown_endpoint(id)),
    }
    if !endpoint.is_manager()
        && wanted.user_endpoint_config.as_ref().is_some_and(|config| !config.to_object().is_empty())
    {
        let message = format!("user_endpoint_config: endpoint {id} has no template that could use it");
        return Err(Failure::new(Code::SemanticallyInvalid, message));
    }
    let count: usize = wanted.tasks.values().map(Vec::len).sum();
    if count == 0 {
        return Err(Failure::new(Code::RequestMalformed, "tasks: there are none"));
    }
    if count > TASKS || wanted.tasks.len() > FUNCTIONS {
        let message = format!("tasks: more than {TASKS} tasks or {FUNCTIONS} functions in one request");
        return Err(Failure::new(Code::BatchRunTooLarge, message));
    }
    for (&function, payloads) in &wanted.tasks {
        let known = app.store.function_access(function).await?;
        let known = known.filter(|&it| rules::call(it, caller) == Verdict::Yes);
        known.ok_or_else(|| Failure::unknown_function(function))?;
        if !rules::permitted(&endpoint, function) {
            return Err(Failure::not_permitted(function, id));
        }
        if payloads.iter().any(|payload| payload.held_bytes() > PAYLOAD) {
            let message = format!("tasks.{function}: a payload exceeds the limit of {PAYLOAD} bytes");
            return Err(Failure::new(Code::TaskPayloadTooLarge, message));
        }
    }
    Ok(endpoint)
}
