//! Tests of bodies, where the type alone does not determine the bytes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper of tests that fails has failed the test")]

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wire::json::{self, FREE_FORM_LIMIT, LIST_LIMIT};
use wire::message::TaskState;
use wire::queue::Registration;
use wire::rest::auth::error::{ErrorBody as AuthError, OAuthError};
use wire::rest::auth::token::{Grant, Introspection, Token, TokenResponse, scopes};
use wire::rest::container::Build;
use wire::rest::error::{AuthorizationParameters, Code, ErrorBody};
use wire::rest::submit::{MAX_TASKS, Submit};
use wire::rest::task::{Document, Documents};
use wire::rest::{SUBMIT_LIMIT, endpoint, function};
use wire::{EndpointId, FunctionId, TaskId};

const ID: &str = "11111111-2222-3333-4444-555555555555";

fn value(body: &impl serde::Serialize) -> Value {
    serde_json::from_slice(&json::encode(body)).unwrap()
}

fn task() -> TaskId {
    ID.parse().unwrap()
}

#[test]
fn a_task_document_has_no_null() {
    let documents = [
        Document::pending(task(), TaskState::WaitingForEp),
        Document::success(task(), "00\ngARLKi4=\n".into(), "1677183605.212898".to_owned()),
        Document::failed(task(), "Traceback".into(), "1677183605.212898".to_owned()).with_details(None),
        Document::unknown(task()),
    ];
    for document in documents {
        let members = value(&document);
        let members = members.as_object().unwrap();
        assert!(members.values().all(|member| !member.is_null()), "{members:?}");
        assert_eq!(members.contains_key("result"), document.status == TaskState::Success);
    }
    let old = format!(r#"{{"task_id":"{ID}","status":"Failed","reason":"Unknown task id"}}"#);
    assert_eq!(json::decode::<Document<'_>>(old.as_bytes(), 1000).unwrap(), Document::unknown(task()));
    assert_eq!(value(&Documents::new(BTreeMap::new())), json!({"response": "batch", "results": {}}));
}

#[test]
fn every_code_has_one_name_one_number_and_a_status() {
    for &code in Code::ALL {
        assert_eq!(Code::from_name(code.name()), Some(code));
        assert_eq!(value(&code), code.name());
        assert!((400..600).contains(&code.http_status()));
        if let Some(number) = code.number() {
            assert_eq!(Code::from_number(number), Some(code));
            assert_eq!(serde_json::from_value::<Code>(number.into()).unwrap(), code);
        }
    }
    let numbers: Vec<_> = Code::ALL.iter().filter_map(|code| code.number()).collect();
    assert_eq!(numbers, Vec::from_iter(0..=28));
    assert_eq!(Code::FunctionNotPermitted.to_string(), "FUNCTION_NOT_PERMITTED");
    assert_eq!((Code::ResourceLocked.number(), Code::ResourceLocked.http_status()), (Some(25), 423));
    assert_eq!((Code::SemanticallyInvalid.number(), Code::SemanticallyInvalid.http_status()), (None, 422));
    for stranger in [json!("NEW_CODE"), json!(99), json!(-1), json!(1e30), json!(null)] {
        assert_eq!(serde_json::from_value::<Code>(stranger).unwrap(), Code::UnknownError);
    }
}

#[test]
fn an_error_has_what_clients_of_every_version_read() {
    let endpoint: EndpointId = ID.parse().unwrap();
    let function: FunctionId = ID.parse().unwrap();
    assert_eq!(
        value(&ErrorBody::endpoint_not_found(endpoint)),
        json!({"status": "Failed", "code": "ENDPOINT_NOT_FOUND", "message": format!("Endpoint {ID} could not be resolved"),
               "reason": format!("Endpoint {ID} could not be resolved"), "http_status_code": 404, "error_args": [ID]})
    );
    let refused = ErrorBody::function_not_permitted(function, endpoint);
    assert_eq!(refused.message, format!("Function {ID} not permitted on endpoint {ID}"));
    assert_eq!(refused.error_args, [ID, ID]);
    let failed = ErrorBody::failed_validation("5 is not of type 'string'");
    assert_eq!(failed.message, "Request payload failed validation: 5 is not of type 'string'");
    assert_eq!(failed.http_status_code, 422);
    let gare = ErrorBody::new(Code::AuthenticationPolicy, "no")
        .with_authorization(AuthorizationParameters::default());
    assert_eq!(value(&gare)["authorization_parameters"], json!({}));
    let commas = format!(r#"{{"session_required_policies":"{ID}, {ID}"}}"#);
    let read: AuthorizationParameters = json::decode(commas.as_bytes(), 1000).unwrap();
    assert_eq!(read.session_required_policies.map(|policies| policies.len()), Some(2));
    assert_eq!(value(&AuthError::oauth(OAuthError::InvalidGrant, "stale"))["error"], "invalid_grant");
    let forbidden = AuthError::new(403, "FORBIDDEN", "Forbidden", "not yours");
    assert_eq!(value(&forbidden)["errors"][0]["status"], "403");
}

#[test]
fn errors_of_bodies_name_the_field() {
    fn refusal<'a, T: serde::Deserialize<'a>>(body: &'a str) -> String {
        json::decode::<T>(body.as_bytes(), SUBMIT_LIMIT).err().expect("this body is wrong").to_string()
    }
    let submit = format!(r#"{{"tasks":{{"{ID}":["a",5]}}}}"#);
    assert_eq!(refusal::<Submit<'_>>(&submit), format!("tasks.{ID}[1]: not a string"));
    assert_eq!(refusal::<Submit<'_>>(r#"{"tasks":{"f":[]}}"#), "tasks.f: not a UUID");
    assert_eq!(refusal::<Submit<'_>>("{}"), "tasks: missing");
    assert!(refusal::<Submit<'_>>(r#"{"tasks":[]}"#).starts_with("tasks: invalid type: sequence"));
    assert_eq!(
        refusal::<Submit<'_>>(r#"{"tasks":{},"user_runtime":{"python":[]}}"#),
        "user_runtime.python: invalid type: sequence, expected a map"
    );
    assert_eq!(refusal::<function::Register<'_>>(r#"{"function_code":"x"}"#), "function_name: missing");
    let register = r#"{"endpoint_name":"x","metadata":{"hostname":5}}"#;
    assert!(
        refusal::<endpoint::Register>(register).starts_with("metadata: hostname: "),
        "{}",
        refusal::<endpoint::Register>(register)
    );
}

#[test]
fn values_that_take_more_memory_than_their_text_are_limited() {
    fn refusal<'a, T: serde::Deserialize<'a>>(body: &'a str) -> String {
        json::decode::<T>(body.as_bytes(), usize::MAX).err().expect("this body is too much").to_string()
    }
    let payloads = vec!["\"\""; MAX_TASKS / 2 + 1].join(",");
    let other = ID.replace('1', "2");
    let submit = format!(r#"{{"tasks":{{"{ID}":[{payloads}],"{other}":[{payloads}]}}}}"#);
    assert!(refusal::<Submit<'_>>(&submit).contains("more than 100000 tasks"));
    let half = format!(r#"{{"tasks":{{"{ID}":[{payloads}]}}}}"#);
    assert_eq!(json::decode::<Submit<'_>>(half.as_bytes(), usize::MAX).unwrap().count(), MAX_TASKS / 2 + 1);

    let many = vec!["\"\""; LIST_LIMIT + 1].join(",");
    assert_eq!(refusal::<Build>(&format!(r#"{{"apt":[{many}]}}"#)), "apt: more than 10000 items");
    let serializers = format!(r#"{{"tasks":{{}},"result_serializers":[{many}]}}"#);
    assert_eq!(refusal::<Submit<'_>>(&serializers), "result_serializers: more than 10000 items");
    let metadata =
        format!(r#"{{"endpoint_name":"x","metadata":{{"x":[{}0]}}}}"#, "0,".repeat(FREE_FORM_LIMIT / 2));
    assert!(refusal::<endpoint::Register>(&metadata).contains("exceed the limit"));
}

#[test]
fn a_registration_has_all_that_any_endpoint_reads() {
    let endpoint: EndpointId = ID.parse().unwrap();
    assert_eq!(
        value(&Registration::new(endpoint, "amqp://u:p@h/")),
        json!({
            "endpoint_id": ID,
            "task_queue_info": {"connection_url": "amqp://u:p@h/", "queue": format!("{ID}.tasks"), "exchange": "tasks"},
            "result_queue_info": {
                "connection_url": "amqp://u:p@h/", "queue": "results", "exchange": "results",
                "queue_publish_kwargs": {"exchange": "results", "routing_key": format!("{ID}.results"),
                                         "mandatory": true, "properties": {"delivery_mode": 2}}},
            "heartbeat_queue_info": {
                "connection_url": "amqp://u:p@h/", "queue": "heartbeats", "exchange": "heartbeats",
                "queue_publish_kwargs": {"exchange": "heartbeats", "routing_key": format!("{ID}.heartbeats"),
                                         "mandatory": true}},
            "command_queue_info": {"connection_url": "amqp://u:p@h/", "queue": format!("{ID}.commands"), "exchange": "commands"},
        })
    );
}

#[test]
fn tokens_have_what_clients_require_and_are_not_printed() {
    let token = Token {
        access_token: "secret-access".to_owned(),
        scope: "openid".to_owned(),
        expires_in: 10,
        token_type: "Bearer".to_owned(),
        resource_server: "auth.globus.org".to_owned(),
        refresh_token: Some("secret-refresh".to_owned()),
        state: None,
    };
    let answer = TokenResponse { token, id_token: None, other_tokens: vec![] };
    let members = value(&answer);
    for required in ["access_token", "scope", "resource_server", "other_tokens", "expires_in"] {
        assert!(members.get(required).is_some(), "{required}");
    }
    let grant = Grant::RefreshToken { refresh_token: "secret-refresh".to_owned(), client_id: None };
    assert!(!format!("{answer:?} {grant:?}").contains("secret"));
    assert_eq!(scopes(" a b  a c b "), ["a", "b", "c"]);
    assert_eq!(value(&Introspection::default()), json!({"active": false}));
}
