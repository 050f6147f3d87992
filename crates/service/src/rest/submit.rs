//! `POST /v3/endpoints/{id}/submit`: accepts tasks. The answer is sent once they are on disk.

use std::borrow::Cow;

use axum::extract::{Path, Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use jiff::Timestamp;
use wire::extensions::SetUp;
use wire::rest::error::Code;
use wire::rest::submit::{Submit as Wanted, Submitted};
use wire::start_document::user_endpoint_name;
use wire::{EndpointId, IdentityId, RequestId, TaskGroupId, TaskId};

use super::App;
use super::caller::Caller;
use super::route::{Method, Parameter, Route};
use crate::clock;
use crate::http::failure::Failure;
use crate::limits::Limits;
use crate::permissions::{self, Permission};
use crate::random;
use crate::user_endpoint::starts::{START_TIMEOUT, StartResult};
use crate::user_endpoint::{self, Starter};
use store::secret::Hash;
use store::{
    Endpoint, NewTask, RequestedConfiguration, StoredContent, Submit, SubmitFingerprint, SubmitResult,
};

/// The resource specification, and the list of serializers.
const SPECIFICATION: usize = 64 << 10;
/// Bytes that the id of a task takes in the answer, roughly.
const ID: usize = 48;
/// The header `Idempotency-Key`.
const KEY: usize = 255;

pub(super) const ROUTE: Route = Route {
    header: &[Parameter {
        name: "Idempotency-Key",
        summary: "A submit with the same key and body is the same submit, however often it is sent",
        values: &[],
    }],
    body: Some("Submit"),
    refusals: &[
        Code::EndpointNotFound,
        Code::EndpointAccessForbidden,
        Code::FunctionNotFound,
        Code::FunctionNotPermitted,
        Code::TaskGroupNotFound,
        Code::ResourceConflict,
        Code::BatchRunTooLarge,
        Code::SemanticallyInvalid,
    ],
    ..Route::new(
        Method::Post,
        "/v3/endpoints/{id}/submit",
        "submit",
        "Submitted",
        "Submit tasks to an endpoint",
    )
};

pub(super) async fn submit(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let id: EndpointId = super::id(&id)?;
    let key = key(request.headers())?;
    let limit = app.limits.submit_bytes();
    let mut body = app.bodies.read(request, limit).await?;
    let mut wanted: Wanted<'_> = wire::json::decode(&body.bytes, limit)?;
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
        // One that the client made up becomes theirs with this submit.
        Some(group) => match app.store.task_group(group).await? {
            Some(known) if permissions::tasks(&known, caller) != Permission::Granted => {
                return Err(Failure::unknown_group(group));
            }
            _ => group,
        },
        None => TaskGroupId::from_uuid(random::ordered_id()),
    };
    let now = clock::now();
    let fingerprint = SubmitFingerprint {
        body: Hash::of_parts(&[caller.as_uuid().as_bytes(), id.as_uuid().as_bytes(), &body.bytes]),
        key,
        not_before: now - app.limits.resent(),
        keys_not_before: now - app.limits.idempotency(),
    };

    let id = match target.is_manager {
        true => {
            let choices = choices(&wanted)?;
            drop(wanted);
            // The start may take long, and others need the memory of a large body.
            let (id, whole) = match body.store_in_file() {
                Ok(aside) => {
                    let id = user_endpoint(&app, &target, caller, choices).await?;
                    (id, app.bodies.read_back(aside).await?)
                }
                Err(small) => (user_endpoint(&app, &target, caller, choices).await?, *small),
            };
            body = whole;
            wanted = wire::json::decode(&body.bytes, limit)?;
            id
        }
        false => id,
    };
    let memory = app.unread_answers.take(caller, wanted.count() * ID)?;
    let calls: Vec<_> = wanted.tasks.iter().map(|(&function, payloads)| (function, payloads.len())).collect();
    let payloads = wanted.tasks.values().flatten().map(|payload| match payload.to_json() {
        Cow::Borrowed(there) => body.bytes.slice_ref(there.as_bytes()),
        Cow::Owned(text) => text.into(),
    });
    let payloads = app.store.store_contents(payloads.collect()).await?;
    let files: Vec<_> = payloads.iter().filter_map(StoredContent::file).collect();
    let functions = calls.iter().flat_map(|&(function, count)| std::iter::repeat_n(function, count));
    let tasks = functions.zip(payloads).map(|(function, payload)| NewTask {
        id: TaskId::from_uuid(random::ordered_id()),
        function,
        payload,
    });
    let request = RequestId::from_uuid(random::ordered_id());
    let count = wanted.count();
    let command = Submit {
        request,
        group,
        owner: caller,
        queue: wanted.create_queue,
        endpoint: id,
        resource_specification: specification,
        result_serializers: serializers,
        tasks: tasks.collect(),
        now: clock::now(),
        fingerprint,
        in_flight: app.submit_answers.in_flight(),
    };
    drop(wanted);
    let ticket = app.submit_answers.begin(request);
    let written = app.store.submit(command).await;
    // Its payloads are where it lies until then.
    drop(body);
    let (accepted, ticket) = match written {
        Ok(SubmitResult::New(accepted)) => {
            app.metrics.submitted(count);
            app.dispatch.submitted(accepted.endpoint);
            if target.is_manager {
                // It may have left since it was found.
                app.starts.wake_supervisor();
            }
            (accepted, ticket)
        }
        Ok(SubmitResult::Again(accepted)) => {
            tracing::info!(request = %accepted.request, "a retried submit gets the same ids");
            app.store.remove_files(files).await;
            let ticket = app.submit_answers.begin(accepted.request);
            (accepted, ticket)
        }
        Ok(SubmitResult::KeyOfAnother) => {
            app.store.remove_files(files).await;
            let message = "Idempotency-Key: it was used for another body";
            return Err(Failure::new(Code::SemanticallyInvalid, message));
        }
        Ok(SubmitResult::GroupOfAnother) => {
            app.store.remove_files(files).await;
            return Err(Failure::unknown_group(group));
        }
        Ok(SubmitResult::NoEndpoint) => {
            app.store.remove_files(files).await;
            return Err(Failure::unknown_endpoint(id));
        }
        Err(error) => {
            // In an outage nobody knows yet what was committed: the next clean-up looks again.
            if !error.is_outage()
                && let Err(error) = app.store.remove_unreferenced(files).await
            {
                tracing::debug!(%error, "could not remove payload files; the next clean-up does");
            }
            // If the database went away at the commit, it may hold the tasks all the same.
            app.dispatch.submitted(id);
            return Err(error.into());
        }
    };
    let mut ids = accepted.tasks.iter().copied();
    let tasks = calls.into_iter().map(|(function, count)| (function, ids.by_ref().take(count).collect()));
    let answer = memory.json(&Submitted {
        request_id: accepted.request,
        task_group_id: accepted.group,
        endpoint_id: accepted.endpoint,
        tasks: tasks.collect(),
        ha_warning: None,
    });
    Ok(ticket.follow(answer))
}

/// The hash of the header `Idempotency-Key`.
fn key(headers: &HeaderMap) -> Result<Option<Hash>, Failure> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    if key.is_empty() || key.len() > KEY {
        let message = format!("Idempotency-Key: must have 1 to {KEY} bytes");
        return Err(Failure::new(Code::RequestMalformed, message));
    }
    Ok(Some(Hash::of_parts(&[key.as_bytes()])))
}

/// What a user endpoint is asked for with.
fn choices(wanted: &Wanted<'_>) -> Result<RequestedConfiguration, Failure> {
    let config = wanted.user_endpoint_config.clone().unwrap_or_default();
    if config.as_json().len() > SPECIFICATION {
        return Err(Failure::new(Code::RequestMalformed, "user_endpoint_config: too long"));
    }
    Ok(RequestedConfiguration { config, runtime: wanted.user_runtime.clone() })
}

/// The endpoint that `manager` runs for this caller with this configuration, once it takes tasks.
async fn user_endpoint(
    app: &App,
    manager: &Endpoint,
    caller: IdentityId,
    choices: RequestedConfiguration,
) -> Result<EndpointId, Failure> {
    let most = app.limits.endpoints_per_identity;
    let starter = Starter {
        store: app.store.clone(),
        dispatch: app.dispatch.clone(),
        starts: app.starts.clone(),
        most,
    };
    let wanted = user_endpoint::Wanted { identity: caller, choices };
    let id = starter.id_of(manager.id, &wanted).await?;
    let ready = starter.ready(manager, id, wanted).await;
    app.metrics.start(ready.is_ok());
    match ready {
        Ok(()) => Ok(id),
        Err(outcome) => {
            let seen = app.presence.last_seen(manager.id);
            Err(not_started(manager, id, outcome, seen, most))
        }
    }
}

/// Why the user endpoint `id` of `manager`, which was last seen then, did not start.
fn not_started(
    manager: &Endpoint,
    id: EndpointId,
    outcome: StartResult,
    last_seen: Option<Timestamp>,
    most: u32,
) -> Failure {
    match outcome {
        StartResult::Refused(why) => {
            Failure::new(Code::SemanticallyInvalid, format!("Request payload failed validation: {why}"))
        }
        StartResult::Away => {
            let seen = match last_seen {
                Some(seen) => format!("it was last seen at {seen:.0}"),
                None => "it was not seen since this service started".to_owned(),
            };
            let message = format!(
                "Endpoint {} is not connected, so its user endpoints can't start; {seen}. Its administrator starts it with \
                 `globus-compute-endpoint start {}`",
                manager.id, manager.name
            );
            Failure::new(Code::ResourceConflict, message)
        }
        StartResult::Silent => {
            let message = format!(
                "User endpoint {id} did not report within {} s of its start. It may still be starting: submit again, and the \
                 same one takes the task. If this goes on, read ~/.globus_compute/{}/endpoint.log on the endpoint's machine",
                START_TIMEOUT.as_secs(),
                user_endpoint_name(manager.id, id)
            );
            Failure::new(Code::SemanticallyInvalid, message)
        }
        StartResult::SettingUp(SetUp { seconds, output }) => {
            let message = format!(
                "User endpoint {id} is still being set up, for {seconds} s so far: its endpoint_setup has not ended. Submit \
                 again, and the same one takes the task. {}",
                match output.trim_end() {
                    "" => "It has printed nothing yet".to_owned(),
                    lines => format!("The last that it printed:\n{lines}"),
                }
            );
            Failure::new(Code::SemanticallyInvalid, message)
        }
        StartResult::TooMany => Failure::too_many_endpoints("user endpoints", most),
        StartResult::Ready | StartResult::Broken => {
            Failure::unavailable("The user endpoint could not be started; try again later")
        }
    }
}

/// All that can be said against a request before anything is written. It is refused whole, with the item named.
async fn may_submit(
    app: &App,
    id: EndpointId,
    caller: IdentityId,
    wanted: &Wanted<'_>,
) -> Result<Endpoint, Failure> {
    let endpoint = app.store.endpoint(id).await?.ok_or_else(|| Failure::unknown_endpoint(id))?;
    match permissions::submit(&endpoint, caller) {
        Permission::Granted => {}
        Permission::Forbidden => return Err(Failure::forbidden_endpoint(id)),
        Permission::Hidden => return Err(Failure::unknown_endpoint(id)),
    }
    if !endpoint.is_manager
        && wanted.user_endpoint_config.as_ref().is_some_and(|config| !config.to_object().is_empty())
    {
        let message = format!(
            "user_endpoint_config: endpoint {id} has no template that could use it. Leave it out; or its owner stops it and turns \
             it into a manager with `globus-compute-endpoint migrate-to-template-capable {name}`, whose template can take such \
             options",
            name = endpoint.name
        );
        return Err(Failure::new(Code::SemanticallyInvalid, message));
    }
    let Limits { tasks_per_submit, functions_per_submit, payload_bytes, .. } = app.limits;
    let count = wanted.count();
    if count == 0 {
        return Err(Failure::new(Code::RequestMalformed, "tasks: there are none"));
    }
    if count > tasks_per_submit || wanted.tasks.len() > functions_per_submit {
        let message = format!(
            "tasks: more than {tasks_per_submit} tasks or {functions_per_submit} functions in one request"
        );
        return Err(Failure::new(Code::BatchRunTooLarge, message));
    }
    let known = app.store.function_access(wanted.tasks.keys().copied()).await?;
    let groups = super::groups(app, caller, known.values()).await?;
    for (&function, payloads) in &wanted.tasks {
        let access =
            known.get(&function).filter(|&&it| permissions::call(it, caller, &groups) == Permission::Granted);
        access.ok_or_else(|| Failure::unknown_function(function))?;
        if !permissions::permitted(&endpoint, function) {
            return Err(Failure::not_permitted(function, id));
        }
        if let Some(held) =
            payloads.iter().map(|payload| payload.held_bytes()).find(|held| *held > payload_bytes)
        {
            let message = format!(
                "tasks.{function}: a payload takes {held} bytes, and the service takes {payload_bytes} bytes \
                 (limits.payload_bytes). Put large data into a file that the endpoint can read, and send its name"
            );
            return Err(Failure::new(Code::TaskPayloadTooLarge, message));
        }
    }
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use store::test_database::registration;

    #[test]
    fn a_user_endpoint_that_did_not_start_says_what_to_do() {
        let id = |number| EndpointId::from_uuid(Uuid::from_u128(number));
        let manager = registration(id(1), IdentityId::from_uuid(Uuid::from_u128(2))).endpoint;
        let text = |outcome, seen| not_started(&manager, id(3), outcome, seen, 9).message().to_owned();
        let never = text(StartResult::Away, None);
        assert!(
            never.contains("not connected") && never.contains("not seen since this service started"),
            "{never}"
        );
        let away = text(StartResult::Away, Some(Timestamp::UNIX_EPOCH));
        assert!(away.contains("last seen at 1970-01-01T00:00:00Z"), "{away}");
        assert!(away.contains("`globus-compute-endpoint start ep`"), "{away}");
        let silent = text(StartResult::Silent, None);
        let log = format!("~/.globus_compute/uep.{}.{}/endpoint.log", id(1), id(3));
        assert!(
            silent.contains("within 50 s") && silent.contains("submit again") && silent.contains(&log),
            "{silent}"
        );
        let set_up = |output: &str| StartResult::SettingUp(SetUp { seconds: 51, output: output.to_owned() });
        let setting_up = text(set_up("solving\n"), None);
        assert!(
            setting_up.contains("for 51 s so far")
                && setting_up.ends_with("The last that it printed:\nsolving"),
            "{setting_up}"
        );
        assert!(text(set_up(""), None).ends_with("It has printed nothing yet"));
        let refused = text(StartResult::Refused("(KeyError) 'x'".to_owned()), None);
        assert_eq!(refused, "Request payload failed validation: (KeyError) 'x'");
    }
}
