//! Tests how delivered messages become tasks: the headers, the body, allowed functions, and the memory limit.

use super::*;

/// The result in a `Keep`, decoded: its data, and its error's code.
fn refusal(actions: &[Action]) -> (String, String) {
    let [Action::Keep { result, .. }] = actions else { panic!("{actions:?}") };
    let result = TaskResult::decode(result).unwrap();
    (result.data.to_str().into_owned(), result.error_details.unwrap().code)
}

#[test]
fn bad_headers_end_in_an_error_result_that_names_them() {
    let table = [
        (json!({"function_uuid": null}), "the message has no header function_uuid"),
        (json!({"function_uuid": 5}), "the message has no header function_uuid"),
        (json!({"function_uuid": "f"}), "the header function_uuid is no id"),
        (json!({"resource_specification": "{"}), "the header resource_specification: not JSON"),
        (json!({"resource_specification": "[]"}), "the header resource_specification: not an object"),
        (json!({"resource_specification": 5}), "the header resource_specification: not an object"),
        (json!({"result_serializers": "x"}), "the header result_serializers is no list of texts"),
        (json!({"result_serializers": [1]}), "the header result_serializers is no list of texts"),
    ];
    for (changes, why) in table {
        let mut fixture = Fixture::up(settings());
        let mut message = delivery(tag(0, 1), task(1), b"x");
        message.headers.extend(changes.as_object().unwrap().clone());
        let (data, code) = refusal(&fixture.on(Input::Delivered(message)));
        assert!(data.starts_with(&format!("Failed to start task: {why}")), "{changes}: {data}");
        assert_eq!(code, "RemoteExecutionError");
        assert_eq!(
            fixture.kept(1)[0],
            Action::Acknowledge(vec![tag(0, 1)]),
            "{changes}: the message leaves the queue"
        );
    }
}

#[test]
fn a_body_beyond_the_limit_ends_in_an_error_result() {
    let mut fixture = Fixture::up(settings());
    let message = delivery(tag(0, 1), task(1), &vec![b' '; wire::message::LIMIT + 1]);
    let (data, _) = refusal(&fixture.on(Input::Delivered(message)));
    assert!(data.starts_with("Failed to start task: the message has 83886081 bytes"), "{data}");
    assert_eq!(fixture.kept(1)[0], Action::Acknowledge(vec![tag(0, 1)]), "the message leaves the queue");
}

#[test]
fn good_headers_reach_the_engine() {
    let mut fixture = Fixture::up(settings());
    let mut message = delivery(tag(0, 1), task(1), b"body");
    let more = json!({"resource_specification": "{\"num_nodes\": 2}", "result_serializers": ["a.B"],
                      "function_python": "3.11", "unknown": true});
    message.headers.extend(more.as_object().unwrap().clone());
    let actions = fixture.on(Input::Delivered(message));
    let [Action::Submit(submitted)] = actions.as_slice() else { panic!("{actions:?}") };
    let Task(submission) = submitted.as_ref();
    assert_eq!(submission.body, &b"body"[..]);
    assert_eq!(submission.resource_specification["num_nodes"], 2);
    assert_eq!(submission.result_serializers, ["a.B"]);
    assert_eq!(submission.function_python.as_deref(), Some("3.11"));
}

#[test]
fn a_message_without_a_task_id_is_rejected() {
    let mut fixture = Fixture::up(settings());
    for (headers, body) in [
        (json!({}), &b""[..]),
        (json!({}), b"\x01{}"),
        (json!({"task_uuid": "x"}), b"x"),
        (json!({"task_uuid": 1}), b"x"),
    ] {
        let message = Delivery {
            tag: tag(0, 1),
            content_type: None,
            timestamp: None,
            headers: headers.as_object().unwrap().clone(),
            body: body.to_vec(),
        };
        assert_eq!(fixture.on(Input::Delivered(message)), [Action::Reject(vec![tag(0, 1)])], "{headers}");
    }
    let body = wire::message::Task {
        task_id: task(7),
        container_id: None,
        container: None,
        task_buffer: wire::Text::plain("x"),
    };
    let message = Delivery {
        tag: tag(0, 2),
        content_type: None,
        timestamp: None,
        headers: Default::default(),
        body: body.encode(),
    };
    let actions = fixture.on(Input::Delivered(message));
    assert!(
        matches!(actions.as_slice(), [Action::Keep { task: known, .. }] if *known == task(7)),
        "{actions:?}"
    );
}

#[test]
fn a_function_that_is_not_allowed_is_refused_in_upstreams_words() {
    let allowed = Some([FunctionId::from_uuid(Uuid::from_u128(5))].into());
    let mut fixture = Fixture::up(Settings { allowed, ..settings() });
    let actions = fixture.deliver(1);
    let [Action::Keep { result, .. }] = actions.as_slice() else { panic!("{actions:?}") };
    let text = format!("Function {FUNCTION} not permitted on endpoint {}", endpoint());
    assert_eq!(
        String::from_utf8_lossy(result),
        format!(
            "\u{1}{{\"message_type\":\"result\",\"data\":{{\"task_id\":\"{}\",\"data\":\"{text}\",\
             \"details\":{{\"fid\":\"{FUNCTION}\",\"eid\":\"{}\"}},\"error_details\":{{\"code\":\"FUNCTION_NOT_ALLOWED\",\
             \"user_message\":\"{text}\"}},\"task_statuses\":null}}}}",
            task(1),
            endpoint()
        )
    );
    let mut none = Fixture::up(Settings { allowed: Some(HashSet::new()), ..settings() });
    assert!(matches!(none.deliver(1).as_slice(), [Action::Keep { .. }]), "an empty list allows nothing");
    let function: FunctionId = FUNCTION.parse().unwrap();
    assert_eq!(none.on(Input::Allowed(Some([function].into()))), []);
    assert!(is_submit(&none.deliver(2)), "the list has changed");
    assert_eq!(none.on(Input::Allowed(None)), []);
    assert!(is_submit(&none.deliver(3)), "there is none any more");
}

#[test]
fn a_task_that_waits_is_refused_when_its_function_is_no_longer_allowed() {
    let mut fixture = Fixture::up(settings());
    for number in [1, 2, 3] {
        assert!(is_submit(&fixture.deliver(number)));
    }
    assert_eq!(fixture.on(Input::Assigned(vec![task(1)])), [Action::Journal(vec![task(1)])]);
    let cancels = fixture.on(Input::Allowed(Some(HashSet::new())));
    assert_eq!(cancels, [Action::Cancel(task(2)), Action::Cancel(task(3))], "the first begins");
    assert_eq!(fixture.on(Input::Allowed(Some(HashSet::new()))), [], "once");
    assert_eq!(fixture.on(Input::Assigned(vec![task(2)])), [], "it never begins");
    let (data, code) = refusal(&fixture.on(Input::Ended { task: task(2), result: b"cancelled".to_vec() }));
    assert_eq!(code, "FUNCTION_NOT_ALLOWED", "{data}");
    assert_eq!(fixture.kept(2)[0], Action::Acknowledge(vec![tag(0, 2)]));
    // A stop before the engine has let it go leaves it to the next run.
    fixture.on(Input::Stop);
    assert_eq!(
        fixture.on(Input::Ended { task: task(3), result: b"cancelled".to_vec() }),
        [Action::Requeue(vec![tag(0, 3)])]
    );
}

#[test]
fn the_window_is_limited_in_bytes() {
    let mut fixture = Fixture::up(Settings { bytes: 100, ..settings() });
    let mut deliver = |number: u64, size| {
        fixture.on(Input::Delivered(delivery(tag(0, number), task(u128::from(number)), &vec![0; size])))
    };
    assert!(is_submit(&deliver(1, 60)));
    assert!(matches!(deliver(2, 60).as_slice(), [Action::Submit(_), Action::Consume(false)]));
    assert_eq!(
        deliver(3, 1),
        [Action::Requeue(vec![tag(0, 3)])],
        "it was delivered before the consumer stopped"
    );
    assert_eq!(fixture.end(1).len(), 1, "60 bytes are left: more than half");
    assert_eq!(fixture.end(2)[1..], [Action::Consume(true)]);
    assert!(is_submit(&fixture.deliver(3)));
}
