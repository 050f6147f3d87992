//! Tests which bytes are read, written and refused as messages.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper of tests that fails has failed the test")]

use wire::extensions::SetUp;
use wire::json::{FREE_FORM_LIMIT, Malformed, Object};
use wire::message::{
    self, Actor, DecodeError, ErrorDetails, Liveness, Message, StatusReport, Task, TaskResult, TaskState,
    TaskTransition,
};
use wire::{EndpointId, TaskId, Text};

const ID: &str = "11111111-2222-3333-4444-555555555555";

fn id() -> TaskId {
    ID.parse().unwrap()
}

fn message(kind: &str, data: &str) -> Vec<u8> {
    format!("\u{1}{{\"message_type\":\"{kind}\",\"data\":{data}}}").into_bytes()
}

fn task(buffer: &str) -> Vec<u8> {
    message("task", &format!(r#"{{"task_id":"{ID}","task_buffer":{buffer}}}"#))
}

#[test]
fn a_result_is_written_in_the_order_of_the_original() {
    let result = TaskResult {
        task_id: id(),
        data: Text::from("Traceback: é\n"),
        details: Some(Object::from_iter([("os".to_owned(), "Linux".into())]).into()),
        error_details: Some(ErrorDetails {
            code: "RemoteExecutionError".to_owned(),
            user_message: "An error occurred".to_owned(),
        }),
        task_statuses: Some(vec![TaskTransition {
            timestamp: 1_692_742_841_843_334_000,
            state: TaskState::ExecutionStart,
            actor: Actor::Worker,
        }]),
    };
    let bytes = result.encode();
    assert_eq!(
        String::from_utf8(bytes.clone()).unwrap(),
        "\u{1}{\"message_type\":\"result\",\"data\":{\"task_id\":\"11111111-2222-3333-4444-555555555555\",\
         \"data\":\"Traceback: é\\n\",\"details\":{\"os\":\"Linux\"},\"error_details\":\
         {\"code\":\"RemoteExecutionError\",\"user_message\":\"An error occurred\"},\"task_statuses\":\
         [{\"timestamp\":1692742841843334000,\"state\":\"execution-start\",\"actor\":\"worker\"}]}}"
    );
    assert_eq!(TaskResult::decode(&bytes).unwrap(), result);
    assert!(result.is_error());
}

#[test]
fn absent_fields_of_a_task_are_written_as_null() {
    let task = Task { task_id: id(), container_id: None, container: None, task_buffer: "x".into() };
    let expected = format!(r#"{{"task_id":"{ID}","container_id":null,"container":null,"task_buffer":"x"}}"#);
    assert_eq!(task.encode(), message("task", &expected));
}

#[test]
fn fields_are_read_in_any_order() {
    let reversed =
        format!("\u{1}{{\"data\":{{\"task_buffer\":\"x\",\"task_id\":\"{ID}\"}},\"message_type\":\"task\"}}");
    assert_eq!(Task::decode(reversed.as_bytes()).unwrap(), Task::decode(&task("\"x\"")).unwrap());
    let spaced = format!(
        "\u{1} {{ \"new\" : [ 1 ] , \"message_type\" : \"task\" , \"data\" : {{ \"task_id\" : \"{}\" ,\n\
         \"task_buffer\" : \"x\", \"new\" : null }} }}\n",
        ID.replace('-', "")
    );
    assert_eq!(Task::decode(spaced.as_bytes()).unwrap().task_id, id());
}

#[test]
fn a_status_report_accepts_another_name_of_its_state() {
    let data = format!(
        r#"{{"endpoint_id":"{ID}","ep_status_report":{{"heartbeat_period":0}},"task_statuses":{{}}}}"#
    );
    let report = StatusReport::decode(&message("ep_status_report", &data)).unwrap();
    assert_eq!(report.liveness(), Liveness::Offline);
    assert!(String::from_utf8(report.encode()).unwrap().contains(r#""global_state":{"heartbeat_period":0}"#));
}

#[test]
fn a_heartbeat_says_whether_the_endpoint_is_online() {
    let liveness = |state: &str| {
        let data = format!(r#"{{"endpoint_id":"{ID}","global_state":{state},"task_statuses":{{}}}}"#);
        StatusReport::decode(&message("ep_status_report", &data)).unwrap().liveness()
    };
    assert_eq!(liveness(r#"{"heartbeat_period":30}"#), Liveness::Online { period: 30.0 });
    assert_eq!(liveness(r#"{"heartbeat_period":5.0,"active":true}"#), Liveness::Online { period: 5.0 });
    assert_eq!(liveness(r#"{"heartbeat_period":5.0,"active":false}"#), Liveness::Offline);
    assert_eq!(liveness(r#"{"heartbeat_period":0}"#), Liveness::Offline);
    let set_up = SetUp { seconds: 7, output: "Solving".to_owned() };
    let setting_up = r#"{"heartbeat_period":5,"farcall":{"set_up":{"seconds":7,"output":"Solving"}}}"#;
    assert_eq!(liveness(setting_up), Liveness::SettingUp { period: 5.0, set_up: set_up.clone() });
    let mut written = wire::json::Object::from_iter([("heartbeat_period".to_owned(), 5.into())]);
    set_up.insert_into(&mut written);
    assert_eq!(liveness(&serde_json::to_string(&written).unwrap()), liveness(setting_up));
    let ended = r#"{"heartbeat_period":5,"active":false,"farcall":{"set_up":{"seconds":7},"run":1}}"#;
    assert_eq!(liveness(ended), Liveness::Offline);
    assert_eq!(liveness(r#"{"farcall":{"set_up":7}}"#), Liveness::Online { period: 30.0 });
    assert_eq!(liveness(r#"{"error":"no","heartbeat_period":3}"#), Liveness::FailedToStart("no".to_owned()));
    assert_eq!(liveness(r#"{"error":["no"]}"#), Liveness::FailedToStart("[\"no\"]".to_owned()));
    for unclear in
        ["{}", r#"{"heartbeat_period":null}"#, r#"{"heartbeat_period":"soon","active":1,"error":null}"#]
    {
        assert_eq!(liveness(unclear), Liveness::Online { period: 30.0 }, "{unclear}");
    }
}

#[test]
fn python_infinities_are_read_as_null() {
    let data = format!(
        r#"{{"endpoint_id":"{ID}","global_state":{{"max":Infinity,"min":-Infinity,"n":[NaN],
        "h":"Infinity \" NaN","heartbeat_period":5.0}},"task_statuses":{{}}}}"#
    );
    let report = StatusReport::decode(&message("ep_status_report", &data)).unwrap();
    assert_eq!(report.liveness(), Liveness::Online { period: 5.0 });
    let state = report.global_state.to_object();
    assert!(state["max"].is_null() && state["min"].is_null() && state["n"][0].is_null());
    assert_eq!(state["h"], "Infinity \" NaN");

    let with_details = format!(
        r#"{{"task_id":"{ID}","data":"Infinity\n","details":{{"x":Infinity}},"error_details":null}}"#
    );
    let message = message("result", &with_details);
    let result = TaskResult::decode(&message).unwrap();
    assert_eq!(result.data, "Infinity\n");
    assert_eq!(result.details.unwrap().as_json(), r#"{"x":null}"#);
}

/// The text of the error for these bytes.
fn refusal(bytes: &[u8]) -> String {
    message::decode(bytes).expect_err("this is no message").to_string()
}

#[test]
fn errors_name_the_field() {
    let good = format!(r#"{{"task_id":"{ID}","data":"x"}}"#);
    let transition = r#"{"timestamp":1,"state":"running","actor":"worker"}"#;
    let result = |member: &str| message("result", &format!("{},{member}}}", good.strip_suffix('}').unwrap()));
    for (bytes, expected) in [
        (message("task", &format!(r#"{{"task_id":"{ID}"}}"#)), "data.task_buffer: missing"),
        (message("task", r#"{"task_buffer":"x"}"#), "data.task_id: missing"),
        (message("task", r#"{"task_id":"x","task_buffer":"x"}"#), "data.task_id: not a UUID"),
        (
            message("task", r#"{"task_id":5,"task_buffer":"x"}"#),
            "data.task_id: invalid type: integer `5`, expected a UUID",
        ),
        (task("5"), "data.task_buffer: not a string"),
        (task("null"), "data.task_buffer: not a string"),
        (task("{\"x\":[1]}"), "data.task_buffer: not a string"),
        (result(r#""details":[]"#), "data.details: invalid type: sequence, expected a map"),
        (result(r#""error_details":{"code":"x"}"#), "data.error_details.user_message: missing"),
        (
            result(r#""error_details":{"code":1,"user_message":"x"}"#),
            "data.error_details.code: invalid type: integer `1`, expected a string",
        ),
        (
            result(&format!(
                r#""task_statuses":[{transition},{{"timestamp":1,"state":"dreaming","actor":"worker"}}]"#
            )),
            "data.task_statuses[1].state: unknown variant `dreaming`",
        ),
        (
            result(r#""task_statuses":[{"timestamp":-1,"state":"running","actor":"worker"}]"#),
            "data.task_statuses[0].timestamp: invalid value: integer `-1`, expected u64",
        ),
        (result(r#""task_statuses":{}"#), "data.task_statuses: invalid type: map, expected a sequence"),
        (result(&format!(r#""task_id":"{ID}""#)), "data.task_id: stands there twice"),
        (
            message(
                "ep_status_report",
                &format!(r#"{{"endpoint_id":"{ID}","global_state":3,"task_statuses":{{}}}}"#),
            ),
            "data.global_state: invalid type: integer `3`, expected a map",
        ),
        (
            message(
                "ep_status_report",
                &format!(r#"{{"endpoint_id":"{ID}","global_state":{{}},"task_statuses":{{"x":[]}}}}"#),
            ),
            "data.task_statuses.x: not a UUID",
        ),
        (
            message("container", &format!(r#"{{"container_id":"{ID}","name":"x","images":[{{}}]}}"#)),
            "data.images[0].image_type: missing",
        ),
        (message("task", "[]"), "data: invalid length 0"),
        (b"\x01{\"data\":{}}".to_vec(), "message_type: missing"),
        (b"\x01{\"message_type\":\"task\"}".to_vec(), "data: missing"),
        (b"\x01{\"message_type\":7}".to_vec(), "message_type: invalid type: integer `7`"),
        (
            b"\x01{\"data\":{\"task_buffer\":1},\"message_type\":\"task\"}".to_vec(),
            "data.task_buffer: not a string",
        ),
        (
            b"\x01{\"message_type\":\"x\",\"message_type\":\"task\"}".to_vec(),
            "message_type: stands there twice",
        ),
        (b"\x01{\"data\":{},\"data\":{}}".to_vec(), "data: stands there twice"),
        (b"\x01[1,2]".to_vec(), ".: invalid type: sequence, expected a message envelope"),
    ] {
        let refused = refusal(&bytes);
        assert!(refused.starts_with(expected), "{refused:?} instead of {expected:?}");
    }
}

#[test]
fn the_kinds_of_errors() {
    let whole = task("\"x\"");
    assert_eq!(message::decode(b""), Err(DecodeError::Empty));
    assert_eq!(message::decode(b"{}"), Err(DecodeError::Version(b'{')));
    assert_eq!(message::decode(b"\x02{}"), Err(DecodeError::Version(2)));
    assert_eq!(message::decode(&message("spell", "{}")), Err(DecodeError::UnknownType("spell".to_owned())));
    assert_eq!(
        message::decode(b"\x01{\"data\":{},\"message_type\":\"spell\"}"),
        Err(DecodeError::UnknownType("spell".to_owned()))
    );
    assert_eq!(
        TaskResult::decode(&whole),
        Err(DecodeError::Unexpected { expected: "result", found: "task" })
    );
    let malformed = |bytes: &[u8]| match message::decode(bytes) {
        Err(DecodeError::Malformed(malformed)) => malformed,
        other => panic!("{other:?}"),
    };
    assert!(matches!(malformed(b"\x01"), Malformed::Truncated { .. }));
    assert!(matches!(malformed(&whole[..whole.len() - 1]), Malformed::Truncated { .. }));
    assert!(matches!(malformed(&task("\"\u{0}\"")), Malformed::NotJson { .. }));
    assert!(matches!(malformed(&task(r#""\x""#)), Malformed::NotJson { .. }));
    assert!(matches!(malformed(&task(r#""\u00""#)), Malformed::NotJson { .. }));
    assert!(matches!(malformed(&[&whole[..], b"{}"].concat()), Malformed::NotJson { .. }));
    let mut foreign = task("\"xyz\"");
    let at = foreign.len() - 5;
    foreign[at] = 0xff;
    assert_eq!(malformed(&foreign), Malformed::NotUtf8 { at: at - 1 });
}

#[test]
fn messages_beyond_a_limit_are_refused_before_they_are_stored() {
    let long = task(&format!("\"{}\"", "x".repeat(2000)));
    assert!(message::decode_within(&long, long.len()).is_ok());
    assert_eq!(
        message::decode_within(&long, 2000),
        Err(Malformed::TooLarge { size: long.len() - 1, limit: 2000 }.into())
    );

    let details = format!(
        r#"{{"task_id":"{ID}","data":"x","details":{{"x":[{}0]}}}}"#,
        "0,".repeat(FREE_FORM_LIMIT / 2)
    );
    let refused = refusal(&message("result", &details));
    assert!(refused.starts_with("data.details: ") && refused.contains("exceed the limit"), "{refused}");

    let deep = format!(
        r#"{{"task_id":"{ID}","data":"x","details":{{"x":{}{}}}}}"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    let refused = refusal(&message("result", &deep));
    assert!(refused.starts_with("data.details: ") && refused.contains("recursion limit"), "{refused}");

    // serde_json's internal name for a value kept as text must not let invalid JSON in.
    let magic = format!(
        r#"{{"task_id":"{ID}","data":"x","details":{{"x":{{"$serde_json::private::RawValue":"[1"}}}}}}"#
    );
    assert!(refusal(&message("result", &magic)).starts_with("data.details: "));

    let name = "n".repeat(100_000);
    assert!(refusal(&message(&name, "{}")).len() < 200);
    assert!(refusal(&message("task", &format!(r#"{{"task_id":"{name}","task_buffer":""}}"#))).len() < 300);
}

#[test]
fn a_long_string_is_not_copied_to_be_read() {
    for json in ["\"plain\"", r#""00\ngARLKi4=\n""#] {
        let bytes = task(json);
        let Message::Task(task) = message::decode(&bytes).unwrap() else { unreachable!("it is a task") };
        let token = task.task_buffer.to_json();
        let held = match (&token, task.task_buffer.to_str()) {
            // Without an escape, the content is borrowed from the message.
            (_, std::borrow::Cow::Borrowed(content)) => content.as_ptr(),
            (std::borrow::Cow::Borrowed(token), _) => token.as_ptr(),
            (std::borrow::Cow::Owned(_), _) => panic!("neither form lies in the message"),
        };
        assert!(bytes.as_ptr_range().contains(&held));
    }
}

#[test]
fn ids_have_distinct_types_and_one_spelling() {
    let endpoint: EndpointId = "11111111222233334444555555555555".parse().unwrap();
    assert_eq!(endpoint.to_string(), ID);
    assert_eq!(
        "11111111-2222-3333-4444-55555555555A".parse::<TaskId>().unwrap().to_string().chars().last(),
        Some('a')
    );
    assert_eq!(serde_json::to_string(&endpoint).unwrap(), format!("\"{ID}\""));
    assert_eq!(format!("{endpoint:?}"), format!("EndpointId({ID})"));
    assert!(
        "".parse::<TaskId>().is_err() && "11111111-2222-3333-4444-55555555555".parse::<TaskId>().is_err()
    );
}
