//! Tests a user endpoint of a manager of high assurance: it records what it does with tasks in the manager's audit pipe, and
//! nothing runs without that. The test plays the manager.

use std::fs;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Stdio};

use nix::fcntl::OFlag;
use nix::unistd::{pipe2, read};
use serde_json::{Value, json};

use crate::fake_service::FakeService;
use crate::home::{Home, signal, wait_until};
use crate::queues::send_task;
use crate::{ID, registration};

const FUNCTION: &str = "00000000-0000-4000-8000-0000000000f1";
const FIRST: &str = "00000000-0000-4000-8000-000000000001";
const SECOND: &str = "00000000-0000-4000-8000-000000000002";
/// As upstream's managers number it.
const NUMBER: i32 = 4;

/// Starts a user endpoint that has this end of a pipe as its descriptor 4.
fn start(home: &Home, document: &Value, writer: OwnedFd) -> Child {
    let mut command = home.command(&["start", "uep", "--die-with-parent"]);
    // SAFETY: between fork and exec only system calls are made. The descriptor is open until then.
    unsafe {
        let writer = writer.as_raw_fd();
        command.pre_exec(move || {
            // The second call is for a descriptor that has this number already.
            match libc::dup2(writer, NUMBER) == NUMBER && libc::fcntl(NUMBER, libc::F_SETFD, 0) == 0 {
                true => Ok(()),
                false => Err(std::io::Error::last_os_error()),
            }
        });
    }
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(document.to_string().as_bytes()).unwrap();
    child
}

fn packet(reader: &OwnedFd) -> String {
    let mut buffer = [0; 4096];
    let length = read(reader, &mut buffer).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

#[test]
fn a_user_endpoint_records_what_happens_to_tasks_and_ends_when_it_can_not() {
    let service = FakeService::start(|_| (500, json!({})));
    let home = Home::new(&service);
    let credentials = registration(ID);
    let config = "high_assurance: true\nengine: {}\n";
    let document =
        json!({"amqp_creds": credentials, "config": config, "audit_fd": NUMBER, "allowed_functions": []});
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_DIRECT).unwrap();
    let child = start(&home, &document, writer);
    send_task(&credentials, FUNCTION, FIRST);
    let head = format!("fid={FUNCTION} tid={FIRST} bid=");
    let expected = ["RECEIVED", "FAILED - Function not permitted on endpoint", "EXEC_END"];
    assert_eq!(expected.map(|_| packet(&reader)), expected.map(|state| format!("{head} {state}")));

    drop(reader);
    send_task(&credentials, FUNCTION, SECOND);
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(73), "{ended:?}");
    let log = fs::read_to_string(home.path("uep/endpoint.log")).unwrap();
    assert!(log.contains("Unable to write audit log; endpoint may not continue: "), "{log}");
}

/// Not even a process that a script of its configuration leaves running.
#[test]
fn when_the_user_endpoint_ends_nobody_holds_its_pipe() {
    let service = FakeService::start(|_| (500, json!({})));
    let home = Home::new(&service);
    let left = home.path("left");
    let script = format!("sleep 60 > /dev/null 2>&1 & echo $! > {}", left.display());
    let config = format!("high_assurance: true\nengine: {{}}\nendpoint_setup: '{script}'\n");
    let document = json!({"amqp_creds": registration(ID), "config": config, "audit_fd": NUMBER});
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_DIRECT).unwrap();
    let child = start(&home, &document, writer);
    wait_until(|| {
        fs::read_to_string(home.path("uep/endpoint.log")).is_ok_and(|log| log.contains("the endpoint runs"))
    });
    signal(i32::try_from(child.id()).unwrap(), libc::SIGTERM);
    assert_eq!(packet(&reader), "", "its end");
    assert!(child.wait_with_output().unwrap().status.success());
    let left = fs::read_to_string(left).unwrap().trim().parse().unwrap();
    signal(left, libc::SIGKILL);
}

#[test]
fn without_a_sound_pipe_it_does_not_start() {
    let service = FakeService::start(|_| (500, json!({})));
    let home = Home::new(&service);
    for (number, why) in
        [(NUMBER, "can't be written"), (77, "is not open"), (1, "is none that a manager passes")]
    {
        let document = json!({"amqp_creds": registration(ID), "config": "high_assurance: true\nengine: {}\n", "audit_fd": number});
        let (reader, _writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_DIRECT).unwrap();
        let ended = start(&home, &document, reader).wait_with_output().unwrap();
        let text = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(73), "{text}");
        assert!(text.contains("Error: the manager's audit pipe: descriptor") && text.contains(why), "{text}");
    }
    assert!(!home.path("uep/endpoint.log").exists());
}
