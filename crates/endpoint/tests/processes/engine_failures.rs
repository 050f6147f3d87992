//! An endpoint that can't run tasks reports the reason: in `start`, in `list`, and by its exit status.

use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::fake_service::FakeService;
use crate::home::{Home, Ran};
use crate::{ID, registration};

const NOTHING_WORKS: &str =
    "engine: {provider: {type: LocalProvider, worker_init: 'echo no such module >&2; exit 3'}}\n";

fn check(failed: &Ran) {
    assert_eq!(failed.status, 78, "{failed:?}");
    for words in ["Error: endpoint 'ep' can't run tasks", "EXIT CODE: 3", "no such module", "ep/endpoint.log"]
    {
        assert!(failed.err.contains(words), "{words}: {failed:?}");
    }
}

fn failure(home: &Home) -> Value {
    let listed: Value = serde_json::from_str(&home.run(&["list", "--output", "json"]).out).unwrap();
    listed[0]["failure"].clone()
}

#[test]
fn start_says_why_no_node_works() {
    let service = FakeService::start(|_| (200, registration(ID)));
    let home = Home::new(&service);
    home.configure("ep", NOTHING_WORKS);
    check(&home.run(&["start", "ep"]));
    let listed = home.run(&["list"]);
    assert!(listed.out.contains("| Stopped "), "one of the four states that there are: {listed:?}");
    assert!(listed.err.starts_with("> ep failed at 20") && listed.err.contains("EXIT CODE: 3"), "{listed:?}");
    let recorded = failure(&home);
    assert_eq!(recorded["status"], 78);
    assert!(recorded["text"].as_str().unwrap().contains("no such module"), "{recorded}");
    check(&home.run(&["restart", "ep"]));
    home.configure("ep", "engine: {}\n");
    let mended = home.run(&["start", "ep"]);
    assert_eq!((mended.status, &*mended.err), (0, ""), "a node works: {mended:?}");
    assert_eq!((home.run(&["list"]).err, failure(&home)), (String::new(), json!(null)));
    assert_eq!(home.run(&["stop", "ep"]).status, 0);
}

/// As systemd runs it.
#[test]
fn a_start_in_the_foreground_exits_with_that_status() {
    let service = FakeService::start(|_| (200, registration(ID)));
    let home = Home::new(&service);
    home.configure("ep", NOTHING_WORKS);
    check(&home.run(&["start", "--foreground", "ep"]));
    assert!(fs::read_to_string(home.path("ep/endpoint.log")).unwrap().contains("can't run tasks"));
}

#[test]
fn a_missing_interpreter_is_named() {
    let service = FakeService::start(|_| (200, registration(ID)));
    let home = Home::new(&service);
    home.configure("ep", "engine: {}\n");
    let mut command = home.command(&["start", "ep"]);
    let output = command.env("PATH", "/nowhere").stderr(Stdio::piped()).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{err}");
    assert!(err.contains("python3"), "{err}");
}

#[test]
fn without_a_first_block_start_does_not_wait_and_says_so() {
    let service = FakeService::start(|_| (200, registration(ID)));
    let home = Home::new(&service);
    home.configure("ep", "engine: {provider: {type: LocalProvider, init_blocks: 0}}\n");
    let started = home.run(&["start", "ep"]);
    assert_eq!(started.status, 0, "{started:?}");
    assert!(started.err.contains("starts no node before its first task (init_blocks: 0)"), "{started:?}");
    assert_eq!(home.run(&["stop", "ep"]).status, 0);
}
