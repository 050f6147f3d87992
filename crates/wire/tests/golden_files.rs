//! Reads every golden file, and checks that it is written as it was.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper of tests that fails has failed the test")]

mod golden;

use std::collections::{BTreeMap, BTreeSet};

use golden::{OF_BUFFERS, Rule, TABLE, files, row};
use serde_json::Value;
use wire::Text;
use wire::extensions::{Capabilities, FarcallCommand, RunState};
use wire::message::{self, Message, Task, TaskResult};
use wire::rest::endpoint::Register;

#[test]
fn every_file_has_a_type_and_every_type_a_file() {
    let mut unused: BTreeSet<_> = TABLE.iter().map(|row| row.file).collect();
    for (directory, file, _) in files() {
        if OF_BUFFERS.contains(&file.as_str()) {
            continue;
        }
        let row = row(&directory, &file).unwrap_or_else(|| panic!("{directory}/{file} has no row"));
        unused.remove(row.file);
    }
    assert!(unused.is_empty(), "no file for {unused:?}");
}

#[test]
fn every_body_is_written_as_it_was_read() {
    for (directory, file, path) in files() {
        let Some(row) = row(&directory, &file) else { continue };
        let bytes = std::fs::read(path).unwrap();
        let attempt = (row.attempt)(&bytes).unwrap_or_else(|error| panic!("{directory}/{file}: {error}"));
        assert!(attempt.stable, "{directory}/{file} reads otherwise the second time");
        match row.rule {
            Rule::Message => {}
            Rule::Form => assert_eq!(fields(&attempt.written), fields(&bytes), "{directory}/{file}"),
            Rule::Same | Rule::NullsLeftOut => {
                let (mut was, is) = (value(&bytes), value(&attempt.written));
                if row.rule == Rule::NullsLeftOut {
                    leave_out_nulls(&mut was);
                }
                assert_eq!(is, was, "{directory}/{file}");
            }
        }
    }
}

fn value(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn fields(form: &[u8]) -> BTreeMap<String, String> {
    serde_urlencoded::from_bytes(form).unwrap()
}

fn leave_out_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(leave_out_nulls);
            // Absent metadata is written as an empty object.
            if members.get("endpoint_name").is_some() {
                members.entry("metadata").or_insert_with(|| Value::Object(serde_json::Map::new()));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(leave_out_nulls),
        _ => {}
    }
}

/// Messages that upstream writes, from 1.0 on, as raw UTF-8 as we do.
fn packed_like_ours(directory: &str) -> bool {
    ["common-1.0.0", "endpoint-4.19.0", "farcall-0.1.0"].contains(&directory)
}

fn messages() -> impl Iterator<Item = (String, String, Vec<u8>)> {
    files().into_iter().filter(|(_, file, _)| file.ends_with(".bin")).map(|(directory, file, path)| {
        let bytes = std::fs::read(path).unwrap();
        (directory, file, bytes)
    })
}

/// The same message, with its long string unescaped.
fn plain(message: Message<'_>) -> Message<'static> {
    match message.into_owned() {
        Message::Task(task) => {
            Message::Task(Task { task_buffer: Text::plain(task.task_buffer.into_string()), ..task })
        }
        Message::Result(result) => {
            Message::Result(TaskResult { data: Text::plain(result.data.into_string()), ..result })
        }
        other => other,
    }
}

#[test]
fn messages_are_written_byte_for_byte() {
    let mut tried = 0;
    for (directory, file, bytes) in messages().filter(|(directory, ..)| packed_like_ours(directory)) {
        let message = message::decode(&bytes).unwrap();
        assert_eq!(message::encode(&message), bytes, "{directory}/{file}");
        assert_eq!(message::encode(&plain(message)), bytes, "{directory}/{file}, from plain text");
        tried += 1;
    }
    assert!(tried >= 20);
}

#[test]
fn escaped_messages_equal_raw_ones() {
    let mut tried = 0;
    for (directory, file, bytes) in messages().filter(|(directory, ..)| directory == "common-0.5.0") {
        let raw = golden::root().join("common-1.0.0").join(&file);
        if file == "result-lone-surrogate.bin" {
            continue;
        }
        let raw = std::fs::read(raw).unwrap();
        let (escaped, raw_message) = (message::decode(&bytes).unwrap(), message::decode(&raw).unwrap());
        assert_eq!(escaped, raw_message, "{directory}/{file}");
        tried += 1;
    }
    assert!(tried >= 15);
}

#[test]
fn an_escaped_long_string_is_passed_on_unchanged() {
    for (directory, file, bytes) in messages() {
        let (ours, theirs) = match message::decode(&bytes).unwrap() {
            Message::Task(task) => (task.task_buffer.to_json().into_owned(), "\"task_buffer\":"),
            Message::Result(result) => (result.data.to_json().into_owned(), "\"data\":\""),
            _ => continue,
        };
        let text = std::str::from_utf8(&bytes).unwrap();
        let start = text.rfind(theirs).unwrap() + theirs.trim_end_matches('"').len();
        assert!(text[start..].starts_with(&ours), "{directory}/{file}");
    }
}

#[test]
fn additions_are_where_readers_expect_them() {
    let ours = |file| std::fs::read(golden::root().join("farcall-0.1.0").join(file)).unwrap();
    let heartbeat = ours("heartbeat-run.bin");
    let Message::StatusReport(report) = message::decode(&heartbeat).unwrap() else {
        panic!("it is a heartbeat")
    };
    let run = RunState::of(&report.global_state).unwrap().run;
    assert_eq!(run.to_string(), "dddddddd-dddd-4ddd-8ddd-dddddddddddd");
    let register: Register = wire::json::decode(&ours("register-farcall.request.json"), 1000).unwrap();
    assert_eq!(register.metadata.farcall, Some(Capabilities { version: "0.1.0".to_owned(), cancel: true }));
    let FarcallCommand::CancelTasks { task_ids } =
        FarcallCommand::decode(&ours("control-cancel-tasks.json")).unwrap();
    assert_eq!(task_ids.len(), 2);
}

#[test]
fn half_a_surrogate_pair_is_passed_on() {
    for directory in ["common-0.5.0", "endpoint-3.8.0"] {
        let bytes = std::fs::read(golden::root().join(directory).join("result-lone-surrogate.bin")).unwrap();
        let result = TaskResult::decode(&bytes).unwrap();
        assert!(result.data.to_str().contains('\u{fffd}'));
        assert!(result.encode().windows(6).any(|bytes| bytes == b"\\udcff"));
    }
}
