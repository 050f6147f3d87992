//! Properties of every codec, tested with random input.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper of tests that fails has failed the test")]

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::Value;
use uuid::Uuid;
use wire::buffer;
use wire::extensions::{Capabilities, FarcallCommand, RunState};
use wire::json::{self, FreeForm, Object};
use wire::message::{
    self, Actor, Container, ContainerImage, ErrorDetails, ManagerStatusReport, Message, StatusReport, Task,
    TaskCancel, TaskResult, TaskState, TaskTransition,
};
use wire::queue::{self, Name, PublishInfo, QueueInfo, Registration};
use wire::rest::submit::Submit;
use wire::rest::task::{Document, Documents};
use wire::start_document::{LinkedIdentity, StartArguments, StartDocument, StartEndpoint};
use wire::{BlockId, EndpointId, IdentityId, TaskGroupId, TaskId, Text};

fn uuids() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

/// Text as in payloads, and random text.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        "[A-Za-z0-9+/=\n]{0,300}",
        any::<String>(),
        vec(
            prop_oneof![
                Just('\\'),
                Just('"'),
                Just('\n'),
                Just('\u{0}'),
                Just('\u{7f}'),
                Just('é'),
                Just('😀'),
                any::<char>()
            ],
            0..40
        )
        .prop_map(String::from_iter),
    ]
}

/// A text, plain or as read from a document.
fn long_strings() -> impl Strategy<Value = Text<'static>> {
    (texts(), 0..3).prop_map(|(text, form)| match form {
        0 => Text::plain(text),
        1 => Text::from_json(&serde_json::to_string(&text).unwrap()).unwrap().into_owned(),
        _ => Text::from_json(&ascii_json(&text)).unwrap().into_owned(),
    })
}

/// JSON as Python writes it: everything outside ASCII is escaped.
fn ascii_json(text: &str) -> String {
    let mut out = String::new();
    for character in serde_json::to_string(text).unwrap().chars() {
        if character.is_ascii() {
            out.push(character);
        } else {
            let mut units = [0; 2];
            out.extend(character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    out
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        texts().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            btree_map(texts(), inner, 0..5).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn objects() -> impl Strategy<Value = Object> {
    btree_map(texts(), values(), 0..4).prop_map(|members| members.into_iter().collect())
}

fn transitions() -> impl Strategy<Value = TaskTransition> {
    use Actor::*;
    let states = prop_oneof![
        Just(TaskState::Received),
        Just(TaskState::WaitingForEp),
        Just(TaskState::WaitingForNodes),
        Just(TaskState::WaitingForLaunch),
        Just(TaskState::ExecutionStart),
        Just(TaskState::ExecutionEnd),
        Just(TaskState::Running),
        Just(TaskState::Success),
        Just(TaskState::Failed),
        Just(TaskState::ActionProviderTaskGroupError),
    ];
    let actors = prop_oneof![
        Just(Worker),
        Just(Manager),
        Just(Interchange),
        Just(Endpoint),
        Just(ResultProcessor),
        Just(WebService),
        Just(ActionProvider)
    ];
    (any::<u64>(), states, actors).prop_map(|(timestamp, state, actor)| TaskTransition {
        timestamp,
        state,
        actor,
    })
}

fn images() -> impl Strategy<Value = ContainerImage> {
    (texts(), texts(), any::<i64>(), any::<i64>(), option::of(texts()), option::of(texts())).prop_map(
        |(image_type, location, created_at, modified_at, build_status, build_stderr)| ContainerImage {
            image_type,
            location,
            created_at,
            modified_at,
            build_status,
            build_stderr,
        },
    )
}

fn containers() -> impl Strategy<Value = Container> {
    (uuids(), texts(), vec(images(), 0..3)).prop_map(|(id, name, images)| Container {
        container_id: id.into(),
        name,
        images,
    })
}

fn progress() -> impl Strategy<Value = BTreeMap<TaskId, Vec<TaskTransition>>> {
    btree_map(uuids().prop_map(TaskId::from), vec(transitions(), 0..3), 0..3)
}

fn messages() -> impl Strategy<Value = Message<'static>> {
    let tasks = (uuids(), option::of(uuids()), option::of(containers()), long_strings()).prop_map(
        |(task_id, container_id, container, task_buffer)| {
            Message::Task(Task {
                task_id: task_id.into(),
                container_id: container_id.map(Into::into),
                container,
                task_buffer,
            })
        },
    );
    let errors = (texts(), texts()).prop_map(|(code, user_message)| ErrorDetails { code, user_message });
    let results = (
        uuids(),
        long_strings(),
        option::of(objects()),
        option::of(errors),
        option::of(vec(transitions(), 0..3)),
    )
        .prop_map(|(task_id, data, details, error_details, task_statuses)| {
            Message::Result(TaskResult {
                task_id: task_id.into(),
                data,
                details: details.map(FreeForm::from),
                error_details,
                task_statuses,
            })
        });
    let reports = (uuids(), objects(), progress()).prop_map(|(endpoint_id, state, task_statuses)| {
        Message::StatusReport(StatusReport {
            endpoint_id: endpoint_id.into(),
            global_state: state.into(),
            task_statuses,
        })
    });
    prop_oneof![
        tasks,
        results,
        reports,
        uuids().prop_map(|id| Message::TaskCancel(TaskCancel { task_id: id.into() })),
        progress()
            .prop_map(|task_statuses| Message::ManagerStatusReport(ManagerStatusReport { task_statuses })),
        transitions().prop_map(Message::TaskTransition),
        containers().prop_map(Message::Container),
        images().prop_map(Message::ContainerImage),
    ]
}

fn registrations() -> impl Strategy<Value = Registration> {
    (uuids(), texts(), vec(texts(), 0..3))
        .prop_map(|(id, url, warnings)| Registration { warnings, ..Registration::new(id.into(), &url) })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn messages_are_read_as_written(message in messages()) {
        let bytes = message::encode(&message);
        prop_assert_eq!(bytes[0], message::VERSION);
        prop_assert!(!bytes.contains(&b'\n'), "messages may be joined by newlines");
        let read = message::decode(&bytes).unwrap();
        prop_assert_eq!(&read, &message);
        prop_assert_eq!(&message::encode(&read), &bytes);
        prop_assert_eq!(read.into_owned(), message);
    }

    #[test]
    fn messages_are_the_json_that_serde_writes(message in messages()) {
        let bytes = message::encode(&message);
        let document: Value = serde_json::from_slice(&bytes[1..]).unwrap();
        prop_assert_eq!(&document["message_type"], message.kind());
        let data = match &message {
            Message::Task(it) => serde_json::to_value(it),
            Message::TaskCancel(it) => serde_json::to_value(it),
            Message::Result(it) => serde_json::to_value(it),
            Message::StatusReport(it) => serde_json::to_value(it),
            Message::ManagerStatusReport(it) => serde_json::to_value(it),
            Message::TaskTransition(it) => serde_json::to_value(it),
            Message::Container(it) => serde_json::to_value(it),
            Message::ContainerImage(it) => serde_json::to_value(it),
        };
        prop_assert_eq!(&document["data"], &data.unwrap());
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in vec(any::<u8>(), 0..200), rest in any::<String>()) {
        drop(message::decode(&bytes));
        drop(message::decode(&[&[1], rest.as_bytes()].concat()));
        drop(FarcallCommand::decode(&bytes));
        drop(StartEndpoint::decode(&bytes));
        drop(StartDocument::decode(&bytes));
        drop(Text::from_json(&rest));
        assert!(Name::parse(&rest).is_none_or(|name| name.to_string() == rest));
        drop(buffer::split(&rest));
        drop(buffer::split_task(&rest));
        queue::redacted(&rest);
    }

    #[test]
    fn strings_are_escaped_as_serde_json_does(text in texts()) {
        let ours = Text::from(text.as_str());
        let token = serde_json::to_string(&text).unwrap();
        prop_assert_eq!(ours.to_json(), token.as_str());
        let mut written = b"before".to_vec();
        ours.write_json(&mut written);
        prop_assert_eq!(written, [b"before", token.as_bytes()].concat());
        for token in [token, ascii_json(&text)] {
            let read = Text::from_json(&token).unwrap();
            prop_assert_eq!(read.to_str(), text.as_str());
            prop_assert_eq!(&read, &ours);
            prop_assert_eq!(read.clone().into_string(), text.as_str());
            prop_assert_eq!(read.is_empty(), text.is_empty());
            prop_assert!(read.held_bytes() >= text.len());
        }
    }

    #[test]
    fn texts_are_joined_in_any_form(one in long_strings(), two in long_strings()) {
        let both = format!("{}{}", one.to_str(), two.to_str());
        prop_assert_eq!(one.concat(&two), both.as_str());
        prop_assert_eq!(buffer::task_buffer(&one, &two), both.as_str());
    }

    #[test]
    fn lone_surrogates_of_python_are_read(units in vec(any::<u16>(), 0..20)) {
        let token = format!("\"{}\"", units.iter().map(|unit| format!("\\u{unit:04X}")).collect::<String>());
        let text = Text::from_json(&token).unwrap();
        prop_assert_eq!(text.to_str(), String::from_utf16_lossy(&units));
    }

    #[test]
    fn packed_buffers_can_be_split(buffers in vec(texts(), 0..6)) {
        let buffers: Vec<&str> = buffers.iter().map(String::as_str).collect();
        let packed = buffer::pack(&buffers);
        prop_assert_eq!(buffer::split(&packed).unwrap(), buffers.clone());
        let call = buffer::split_task(&packed);
        prop_assert_eq!(call.is_ok(), buffers.len() == 3);
        if let Ok(call) = call {
            prop_assert_eq!(vec![call.function, call.args, call.kwargs], buffers);
        }
    }

    #[test]
    fn a_cut_is_refused_strictly_and_accepted_leniently(buffers in [texts(), texts(), texts()], last in texts(), cut in any::<prop::sample::Index>()) {
        let packed = buffer::pack(&[&buffers[0], &buffers[1], &format!("{last}x")]);
        let ends: Vec<usize> = packed.char_indices().map(|(at, _)| at).collect();
        let short = &packed[..ends[cut.index(ends.len())]];
        if let Ok(split) = buffer::split(short) {
            prop_assert!(split.len() < 3);
        }
        if let Ok(call) = buffer::split_task(short) {
            prop_assert!(last.starts_with(call.kwargs.strip_suffix('x').unwrap_or(call.kwargs)));
        }
    }

    #[test]
    fn ids_are_read_as_written(id in uuids()) {
        let block = BlockId::from(id);
        prop_assert_eq!(block.to_string().parse::<BlockId>(), Ok(block));
        prop_assert_eq!(block.to_string(), block.to_string().to_lowercase());
        let json = serde_json::to_string(&block).unwrap();
        prop_assert_eq!(serde_json::from_str::<BlockId>(&json).unwrap(), block);
        prop_assert_eq!(*block.as_uuid(), id);
    }

    #[test]
    fn names_are_read_as_written(one in uuids(), two in uuids()) {
        let (endpoint, identity, group) = (EndpointId::from(one), IdentityId::from(one), TaskGroupId::from(two));
        for (text, name) in [
            (queue::task_queue(endpoint), Name::Tasks(endpoint)),
            (queue::command_queue(endpoint), Name::Commands(endpoint)),
            (queue::result_key(endpoint), Name::ResultsOf(endpoint)),
            (queue::heartbeat_key(endpoint), Name::HeartbeatsOf(endpoint)),
            (queue::client_queue(identity, group), Name::Client(identity, group)),
            (format!("{}{group}", queue::client_prefix(identity)), Name::Client(identity, group)),
        ] {
            prop_assert_eq!(Name::parse(&text), Some(name));
            prop_assert_eq!(name.to_string(), text.as_str());
            prop_assert_eq!(Name::parse(&format!("{text}.")), None);
            prop_assert_eq!(Name::parse(&format!("x{text}")), None);
        }
    }

    #[test]
    fn free_form_objects_are_kept_unchanged(object in objects()) {
        let pretty = serde_json::to_string_pretty(&object).unwrap();
        let read: FreeForm = json::decode(pretty.as_bytes(), usize::MAX).unwrap();
        prop_assert_eq!(read.as_json(), pretty.as_str());
        prop_assert_eq!(json::encode(&read), pretty.as_bytes());
        prop_assert_eq!(read.to_object(), object.clone());
        prop_assert_eq!(read, FreeForm::from(object));
    }

    #[test]
    fn additions_are_read_as_written(run in uuids(), mut state in objects(), ids in vec(uuids(), 0..5), cancel in any::<bool>(), ready in any::<bool>(), version in texts()) {
        let run_state = RunState { run: run.into(), ready };
        run_state.insert_into(&mut state);
        prop_assert_eq!(RunState::of(&FreeForm::from(state)), Some(run_state));
        let command = FarcallCommand::CancelTasks { task_ids: ids.into_iter().map(TaskId::from).collect() };
        prop_assert_eq!(FarcallCommand::decode(&command.encode()).unwrap(), command);
        let capabilities = Capabilities { version, cancel };
        prop_assert_eq!(json::decode::<Capabilities>(&json::encode(&capabilities), 1 << 20).unwrap(), capabilities);
    }

    #[test]
    fn start_documents_are_read_as_written(
        registration in registrations(),
        name in texts(),
        user_opts in objects(),
        identity in uuids(),
        allowed in option::of(vec(uuids(), 0..3)),
    ) {
        let command = StartEndpoint {
            command: wire::start_document::START_ENDPOINT.to_owned(),
            args: vec![],
            kwargs: StartArguments { name: name.clone(), user_opts: user_opts.into(), user_runtime: None, amqp_creds: registration.clone() },
            globus_username: name.clone(),
            globus_effective_identity: identity.into(),
            globus_identity_set: vec![LinkedIdentity { sub: identity.into(), rest: Object::new() }],
        };
        prop_assert_eq!(&StartEndpoint::decode(&command.encode()).unwrap(), &command);
        let document = StartDocument {
            amqp_creds: Some(registration),
            config: Some(name),
            ep_info: Some(FreeForm::default()),
            allowed_functions: allowed.map(|ids| ids.into_iter().map(Into::into).collect()),
            audit_fd: None,
            mem_fd: Some(3),
            enckey: None,
        };
        prop_assert_eq!(&StartDocument::decode(&document.encode()).unwrap(), &document);
    }

    #[test]
    fn long_strings_pass_through_rest(payloads in vec(long_strings(), 0..4), function in uuids(), task in uuids()) {
        let submit = Submit {
            create_queue: true,
            tasks: BTreeMap::from([(function.into(), payloads.clone())]),
            task_group_id: None,
            resource_specification: None,
            user_endpoint_config: None,
            result_serializers: None,
            user_runtime: None,
        };
        let bytes = json::encode(&submit);
        let read: Submit<'_> = json::decode(&bytes, usize::MAX).unwrap();
        prop_assert_eq!(&read, &submit);
        prop_assert_eq!(read.count(), payloads.len());
        prop_assert_eq!(json::encode(&read), bytes);

        let mut documents = Documents::new(BTreeMap::new());
        for payload in payloads {
            let id = TaskId::from(task);
            documents.results.insert(id, Document::success(id, payload.clone(), "1.5".to_owned()));
            let bytes = json::encode(&documents);
            prop_assert_eq!(&json::decode::<Documents<'_>>(&bytes, usize::MAX).unwrap(), &documents);
            documents.results.insert(id, Document::failed(id, payload, "1.5".to_owned()));
        }
    }

    #[test]
    fn passwords_are_not_printed(user in "[a-z.0-9-]{1,40}", password in "[A-Za-z0-9_-]{20,44}", host in "[a-z.]{1,20}", id in uuids()) {
        let url = format!("amqps://{user}:{password}@{host}:5671/%2F?heartbeat=30");
        let expected = format!("amqps://***:***@{host}:5671/%2F?heartbeat=30");
        prop_assert_eq!(queue::redacted(&url), expected.as_str());
        for printed in [
            format!("{:?}", Registration::new(id.into(), &url)),
            format!("{:?}", QueueInfo::tasks(id.into(), &url)),
            format!("{:?}", PublishInfo::results(id.into(), &url)),
        ] {
            prop_assert!(!printed.contains(&password));
        }
    }
}

#[test]
fn every_ascii_character_is_escaped_at_every_position() {
    for offset in 0..20 {
        for character in '\0'..='\u{7f}' {
            let text = format!("{}{character}{}", "x".repeat(offset), "é".repeat(10));
            let token = serde_json::to_string(&text).unwrap();
            assert_eq!(Text::from(text.as_str()).to_json(), token);
            assert_eq!(Text::from_json(&token).unwrap(), text.as_str());
        }
    }
}
