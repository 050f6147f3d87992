//! Tests that `endpoint_teardown` runs once at every orderly end of an endpoint.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::fake_service::FakeService;
use crate::home::{Home, alive, signal, wait_until};
use crate::{ID, registration, registration_of, revoke};

/// An endpoint whose scripts record that they ran.
fn configure(home: &Home, name: &str, more: &str) {
    let ran = |what: &str| format!("echo {what} >> {}", home.path(name).join("ran").display());
    home.configure(
        name,
        &format!(
            "endpoint_setup: '{}'\nendpoint_teardown: '{}'\nengine: {{}}\n{more}",
            ran("setup"),
            ran("teardown")
        ),
    );
}

fn ran(home: &Home, name: &str) -> String {
    fs::read_to_string(home.path(name).join("ran")).unwrap_or_default()
}

fn foreground(mut command: Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn runs(home: &Home, name: &str) -> bool {
    fs::read_to_string(home.path(name).join("endpoint.log"))
        .is_ok_and(|log| log.contains("the endpoint runs"))
}

#[test]
fn stopped_by_a_command() {
    let service = FakeService::start(|_| (200, registration(ID)));
    let home = Home::new(&service);
    configure(&home, "ep", "");
    assert_eq!(home.run(&["start", "ep"]).status, 0);
    assert_eq!(ran(&home, "ep"), "setup\n");
    assert_eq!(home.run(&["stop", "ep"]).status, 0);
    assert_eq!(ran(&home, "ep"), "setup\nteardown\n");
    home.run(&["stop", "ep"]);
    assert_eq!(ran(&home, "ep"), "setup\nteardown\n", "it does not run again");
}

#[test]
fn by_each_signal_and_by_two() {
    let service = FakeService::start(|_| (200, registration(ID)));
    let home = Home::new(&service);
    let table = [
        ("term", vec![libc::SIGTERM]),
        ("int", vec![libc::SIGINT]),
        ("quit", vec![libc::SIGQUIT]),
        ("hup", vec![libc::SIGHUP]),
        ("twice", vec![libc::SIGTERM, libc::SIGTERM]),
    ];
    let started: Vec<_> = table
        .iter()
        .map(|(name, signals)| {
            configure(&home, name, "detach_endpoint: false\n");
            (name, signals, foreground(home.command(&["start", name])))
        })
        .collect();
    for (name, signals, mut child) in started {
        wait_until(|| runs(&home, name));
        for number in signals {
            signal(i32::try_from(child.id()).unwrap(), *number);
        }
        assert!(child.wait().unwrap().success(), "{name}");
        assert_eq!(ran(&home, name), "setup\nteardown\n", "{name}");
    }
}

/// This endpoint never had a task, so the hard limit applies.
#[test]
fn idle_for_too_long() {
    let service = FakeService::start(|_| (200, registration(ID)));
    let home = Home::new(&service);
    let idle =
        "idle_heartbeats_soft: 1\nidle_heartbeats_hard: 1\nheartbeat_period: 5\ndetach_endpoint: false\n";
    configure(&home, "ep", idle);
    let mut child = foreground(home.command(&["start", "ep"]));
    assert!(child.wait().unwrap().success());
    assert_eq!(ran(&home, "ep"), "setup\nteardown\n");
    let log = fs::read_to_string(home.path("ep/endpoint.log")).unwrap();
    assert!(log.contains("nothing to do for long enough; stopping"), "{log}");
}

/// A start that fails after `endpoint_setup` runs `endpoint_teardown`, whatever the failure.
#[test]
fn a_start_that_fails_after_the_setup() {
    for (status, answer) in [(423, json!({"code": "RESOURCE_LOCKED"})), (200, json!({"endpoint_id": ID}))] {
        let service = FakeService::start(move |_| (status, answer.clone()));
        let home = Home::new(&service);
        configure(&home, "ep", "");
        assert_ne!(home.run(&["start", "ep"]).status, 0);
        assert_eq!(ran(&home, "ep"), "setup\nteardown\n", "refused by the service with {status}");
    }
    let service = FakeService::start(|_| (200, registration(ID)));
    let home = Home::new(&service);
    // Before the registration, and after it.
    for (name, blocked) in [("spool", "unacked_results"), ("journal", "journal")] {
        configure(&home, name, "");
        fs::write(home.path(name).join(blocked), "in the way").unwrap();
        assert_eq!(home.run(&["start", name]).status, 73, "{name}");
        assert_eq!(ran(&home, name), "setup\nteardown\n", "{name}");
        assert!(!home.path(name).join("daemon.pid").exists(), "{name}");
    }
    configure(&home, "away", "");
    let away =
        home.command(&["start", "away"]).env("FARCALL_SERVICE_URL", "http://127.0.0.1:9/").output().unwrap();
    assert_eq!(away.status.code(), Some(75));
    assert_eq!(ran(&home, "away"), "setup\nteardown\n");
}

/// A service that doesn't answer doesn't delay a stop.
#[test]
fn interrupted_while_it_registers() {
    let (registering, registered) = std::sync::mpsc::channel();
    let service = FakeService::start(move |_| {
        registering.send(()).unwrap();
        // The thread ends with the test's process.
        loop {
            std::thread::park();
        }
    });
    let home = Home::new(&service);
    configure(&home, "ep", "detach_endpoint: false\n");
    let child = foreground(home.command(&["start", "ep"]));
    registered.recv().unwrap();
    signal(i32::try_from(child.id()).unwrap(), libc::SIGINT);
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(String::from_utf8(ended.stderr).unwrap(), "Aborted!\n");
    assert_eq!(ran(&home, "ep"), "setup\nteardown\n");
    assert!(!home.path("ep/daemon.pid").exists());
}

/// A stop after the registration must not be lost before the `exec` of the running endpoint. The process is held there by
/// its first line of output, for which the pipe has no room.
#[test]
fn interrupted_after_its_registration() {
    let service = FakeService::start(|_| (200, registration(ID)));
    let home = Home::new(&service);
    configure(&home, "ep", "detach_endpoint: false\n");
    let (output, mut full) = std::io::pipe().unwrap();
    // SAFETY: it sets the size of a pipe of this test.
    let size = unsafe { libc::fcntl(full.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
    full.write_all(&vec![b' '; usize::try_from(size).unwrap()]).unwrap();
    let mut command = home.command(&["start", "ep"]);
    let mut child = command.stdout(full).stderr(Stdio::null()).spawn().unwrap();
    drop(command);
    wait_until(|| fs::read_to_string(home.path("ep/endpoint.json")).is_ok_and(|text| text.contains(ID)));
    signal(i32::try_from(child.id()).unwrap(), libc::SIGINT);
    let mut text = String::new();
    BufReader::new(output).read_line(&mut text).unwrap();
    assert_eq!(text.trim_start(), format!("Starting endpoint; registered ID: {ID}\n"));
    wait_until(|| child.try_wait().unwrap().is_some());
    assert_eq!(ran(&home, "ep"), "setup\nteardown\n");
    assert!(!home.path("ep/daemon.pid").exists());
}

/// The endpoint registers again, because its credentials were revoked, and the service does not answer.
#[test]
fn stopped_while_it_registers_again() {
    let (registering, registered) = std::sync::mpsc::channel();
    let registrations = std::sync::atomic::AtomicU32::new(0);
    let service = FakeService::start(move |_| {
        if registrations.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
            return (200, registration_of("revoked", ID));
        }
        registering.send(()).unwrap();
        // The thread ends with the test's process.
        loop {
            std::thread::park();
        }
    });
    let home = Home::new(&service);
    configure(&home, "ep", "detach_endpoint: false\n");
    let mut child = foreground(home.command(&["start", "ep"]));
    wait_until(|| runs(&home, "ep"));
    revoke("revoked");
    registered.recv().unwrap();
    signal(i32::try_from(child.id()).unwrap(), libc::SIGTERM);
    // Without the signal it would wait for six attempts of a minute each.
    let since = std::time::Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(since.elapsed().as_secs() < 50, "it waits for the service");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(ran(&home, "ep"), "setup\nteardown\n");
}

#[test]
fn a_failed_setup_is_not_torn_down_and_a_failed_teardown_is_logged() {
    let service = FakeService::start(|_| (200, registration(ID)));
    let home = Home::new(&service);
    home.configure(
        "ep",
        "endpoint_setup: 'echo half; exit 3'\nendpoint_teardown: 'touch ../ran'\nengine: {}\n",
    );
    let failed = home.run(&["start", "ep"]);
    assert_eq!(failed.status, 78);
    assert_eq!(failed.err, "Error: endpoint_setup failed (exit status: 3):\n  half\n");
    assert!(!home.path("ran").exists());
    home.configure("ep", "endpoint_teardown: 'echo stuck; exit 4'\nengine: {}\n");
    assert_eq!(home.run(&["start", "ep"]).status, 0);
    assert_eq!(home.run(&["stop", "ep"]).status, 0);
    let log = fs::read_to_string(home.path("ep/endpoint.log")).unwrap();
    assert!(log.contains("endpoint_teardown failed (exit status: 4):") && log.contains("stuck"), "{log}");
}

/// Neither a kill nor the death of a manager leaves time for a script. The next start runs the one that is owed, before its own.
#[test]
fn after_a_kill_the_next_start_runs_it_first() {
    let service = FakeService::start(|_| (200, registration(ID)));
    let home = Home::new(&service);
    configure(&home, "ep", "detach_endpoint: false\n");
    let mut killed = foreground(home.command(&["start", "ep"]));
    wait_until(|| runs(&home, "ep"));
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(ran(&home, "ep"), "setup\n");
    // The script of that time, whatever the configuration says now.
    home.configure("ep", "endpoint_setup: 'echo new >> ran'\nengine: {}\ndetach_endpoint: false\n");
    fs::remove_file(home.path("ep/endpoint.log")).unwrap();
    let mut command = home.command(&["start", "ep"]);
    command.current_dir(home.path("ep"));
    let mut next = foreground(command);
    wait_until(|| runs(&home, "ep"));
    assert_eq!(ran(&home, "ep"), "setup\nteardown\nnew\n");
    signal(i32::try_from(next.id()).unwrap(), libc::SIGTERM);
    assert!(next.wait().unwrap().success());
    assert_eq!(ran(&home, "ep"), "setup\nteardown\nnew\n", "once");
}

/// A user endpoint of a manager is the first process of its session. While a script of its configuration runs, nothing else would
/// notice the end of the manager.
#[test]
fn a_script_ends_with_the_manager() {
    let service = FakeService::start(|_| (500, json!({})));
    let home = Home::new(&service);
    for script in ["setup", "teardown"] {
        let begun = home.path(&format!("{script}.begun"));
        let config =
            format!("engine: {{}}\nendpoint_{script}: 'echo $$ > {}; sleep 3600; true'\n", begun.display());
        let document = json!({"amqp_creds": registration(ID), "config": config});
        fs::write(home.path("document.json"), document.to_string()).unwrap();
        let start = format!(
            "setsid {} start {script} --die-with-parent < {} & echo $! > {}; wait",
            env!("CARGO_BIN_EXE_globus-compute-endpoint"),
            home.path("document.json").display(),
            home.path("uep").display()
        );
        let mut manager = home.shell(&start).spawn().unwrap();
        let number =
            |path: &std::path::Path| fs::read_to_string(path).ok().and_then(|it| it.trim().parse().ok());
        wait_until(|| number(&home.path("uep")).is_some());
        let user_endpoint = number(&home.path("uep")).unwrap();
        if script == "teardown" {
            wait_until(|| runs(&home, script));
            signal(user_endpoint, libc::SIGTERM);
        }
        wait_until(|| number(&begun).is_some());
        manager.kill().unwrap();
        manager.wait().unwrap();
        wait_until(|| !alive(user_endpoint) && !alive(number(&begun).unwrap()));
        assert_eq!(home.path("teardown/teardown.owed").exists(), script == "teardown");
        fs::remove_file(home.path("uep")).unwrap();
    }
}
