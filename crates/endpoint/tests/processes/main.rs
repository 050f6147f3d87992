//! Tests of the whole program: processes, files, exit statuses. The service is a small HTTP server in the test; the broker is
//! Farcall's.
#![allow(clippy::unwrap_used, clippy::panic)] // a failed unwrap here is a failed test

mod audit;
mod command_output;
mod commands;
mod engine_failures;
mod fake_service;
mod fence;
mod home;
mod hostile_commands;
mod manager;
mod queues;
mod render_user_config;
mod teardown;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use fake_service::FakeService;
use home::{Home, signal, wait_until};
use queues::{registration, registration_of, revoke};

const ID: &str = "7b4a1a3e-3f55-4c7e-9d1a-0f4f0b6f8c11";

#[test]
fn an_endpoints_life() {
    let service = FakeService::start(|_| (200, registration(ID)));
    let home = Home::new(&service);
    assert_eq!(
        home.run(&["list"]).out,
        "No endpoints configured!\n\n (Hint: globus-compute-endpoint configure)\n"
    );
    let configured = home.run(&["configure", "my_first_endpoint"]);
    assert_eq!(
        configured.out,
        format!(
            "Created profile for endpoint named <my_first_endpoint>\n\n\tConfiguration file: {}\n\n\
             Use the `start` subcommand to run it:\n\n\t$ globus-compute-endpoint start my_first_endpoint\n",
            home.path("my_first_endpoint/config.yaml").display()
        )
    );
    assert!(home.listed().contains(&["None".into(), "Initialized".into(), "my_first_endpoint".into()]));

    let started = home.run(&["start", "my_first_endpoint"]);
    assert_eq!(
        (started.status, started.out.as_str()),
        (0, &*format!("Starting endpoint; registered ID: {ID}\n")),
        "{started:?}"
    );
    assert!(home.listed().contains(&[ID.into(), "Running".into(), "my_first_endpoint".into()]));
    let pid = home.pid("my_first_endpoint");
    let title = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(title.starts_with(&format!("Globus Compute Endpoint ({ID}, my_first_endpoint) [")), "{title}");
    let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    assert!(
        environment.contains("a secret of the test"),
        "a task that uses the SDK is the endpoint's client"
    );
    for (file, mode) in [
        ("", 0o700),
        ("config.yaml", 0o600),
        ("endpoint.json", 0o600),
        ("endpoint.log", 0o600),
        ("daemon.pid", 0o644),
        ("unacked_results", 0o700),
        ("journal", 0o700),
    ] {
        let found =
            fs::metadata(home.path("my_first_endpoint").join(file)).unwrap().permissions().mode() & 0o777;
        // The caller's umask applies to the PID file.
        assert_eq!(found & mode, found, "{file}: {found:o}");
        assert_eq!(found & 0o600, mode & 0o600, "{file}: {found:o}");
    }

    let again = home.run(&["start", "my_first_endpoint"]);
    assert_eq!((again.status, again.err.as_str()), (255, "Endpoint 'my_first_endpoint' is already active\n"));

    let stopped = home.run(&["stop", ID]);
    assert_eq!(
        (stopped.status, stopped.err.as_str()),
        (0, "> Endpoint <my_first_endpoint> is now stopped\n")
    );
    assert!(home.listed().contains(&[ID.into(), "Stopped".into(), "my_first_endpoint".into()]));
    assert!(!home.path("my_first_endpoint/daemon.pid").exists());
    let log = fs::read_to_string(home.path("my_first_endpoint/endpoint.log")).unwrap();
    assert!(log.contains(&format!("========== Endpoint begins: {ID}\n")), "{log}");
    assert!(log.ends_with(&format!("---------- Endpoint shutdown: {ID}\n")), "{log}");
    let inactive = home.run(&["stop", "my_first_endpoint"]);
    assert_eq!(
        (inactive.status, inactive.err.as_str()),
        (0, "> Endpoint <my_first_endpoint> is not active.\n")
    );

    assert_eq!(home.run(&["start", "my_first_endpoint"]).status, 0);
    home.run(&["stop", "my_first_endpoint"]);
    let requests = service.requests();
    let lines: Vec<_> = requests.iter().map(|request| request.line.as_str()).collect();
    assert_eq!(
        lines,
        [
            "POST /v2/oauth2/token",
            "GET /v2/version?service=all",
            "POST /v3/endpoints",
            "POST /v2/oauth2/token",
            "GET /v2/version?service=all",
            &format!("PUT /v3/endpoints/{ID}")
        ]
    );
    let body: serde_json::Value = serde_json::from_str(&requests[2].body).unwrap();
    assert_eq!(body["endpoint_name"], "my_first_endpoint");
    assert_eq!(body["metadata"]["farcall"]["cancel"], true);
    let version = body["metadata"]["endpoint_version"].as_str().unwrap();
    assert_eq!(home.run(&["version"]).out, format!("Globus Compute endpoint version: {version}\n"));
    assert_eq!(
        body["metadata"]["endpoint_config"],
        fs::read_to_string(home.path("my_first_endpoint/config.yaml")).unwrap()
    );
}

#[test]
fn a_killed_endpoint_is_disconnected_and_starts_again() {
    let service = FakeService::start(|_| (200, registration(ID)));
    let home = Home::new(&service);
    home.run(&["configure", "ep"]);
    assert_eq!(home.run(&["start", "ep"]).status, 0);
    let pid = home.pid("ep");
    signal(pid, libc::SIGKILL);
    wait_until(|| !home::alive(pid));
    assert!(home.listed().contains(&[ID.into(), "Disconnected".into(), "ep".into()]));
    assert_eq!(home.run(&["start", "ep"]).status, 0);
    assert!(home.listed().contains(&[ID.into(), "Running".into(), "ep".into()]));
    let pid = home.pid("ep");
    signal(pid, libc::SIGKILL);
    wait_until(|| !home::alive(pid));
    let cleaned = home.run(&["stop", "ep"]);
    assert_eq!((cleaned.status, cleaned.err.as_str()), (0, "> Endpoint <ep> has been cleaned up.\n"));
    assert!(home.listed().contains(&[ID.into(), "Stopped".into(), "ep".into()]));
}

/// Each refusal of a service, with the command's message and exit status.
#[test]
fn refusals_of_the_service() {
    let without = |key: &str| {
        let mut whole = registration(ID);
        whole.as_object_mut().unwrap().remove(key);
        whole
    };
    let refusal = || json!({"code": "RESOURCE_LOCKED", "message": "locked"});
    let other = "00000000-0000-4000-8000-000000000000";
    let table = [
        (423, refusal(), 69, "Endpoint registration blocked.  ["),
        (409, refusal(), 69, "Endpoint registration blocked.  ["),
        (404, refusal(), 69, "Endpoint registration blocked.  ["),
        (422, refusal(), 65, "Endpoint registration blocked.  ["),
        (400, refusal(), 65, "Endpoint registration blocked.  ["),
        (
            403,
            refusal(),
            1,
            "Error: the service refused: HTTP status: 403, code: RESOURCE_LOCKED, message: locked",
        ),
        (200, without("heartbeat_queue_info"), 65, "Invalid credential structure"),
        (200, without("task_queue_info"), 65, "Invalid credential structure"),
        (
            200,
            registration(other),
            70,
            "Unexpected response from server: mismatched endpoint id.\n  Expected: ",
        ),
    ];
    for (http, answer, status, text) in table {
        let service = FakeService::start(move |_| (http, answer.clone()));
        let home = Home::new(&service);
        home.run(&["configure", "ep"]);
        let failed = home.run(&["start", "ep", "--endpoint-uuid", ID]);
        assert_eq!(failed.status, status, "{http}: {failed:?}");
        assert!(failed.err.starts_with(text), "{http}: {failed:?}");
        assert_eq!(failed.out, "", "{http}");
        assert!(!home.path("ep/daemon.pid").exists() && !home.path("ep/endpoint.json").exists(), "{http}");
        assert_eq!(service.requests().last().unwrap().line, format!("PUT /v3/endpoints/{ID}"));
    }
}

#[test]
fn nothing_is_registered_when_the_endpoint_could_not_run() {
    let service = FakeService::start(|_| (200, registration(ID)));
    let home = Home::new(&service);
    for (config, status, text) in [
        (
            "foo: 1\nengine: {}\n",
            1,
            "Error: 1 validation error for UserEndpointConfigModel\nfoo\n  extra fields not permitted",
        ),
        (
            "endpoint_setup: 'echo wrong; exit 3'\nengine: {}\n",
            78,
            "Error: endpoint_setup failed (exit status: 3):\n  wrong\n",
        ),
    ] {
        home.configure("ep", config);
        let failed = home.run(&["start", "ep"]);
        assert_eq!(failed.status, status, "{failed:?}");
        assert!(failed.err.starts_with(text), "{failed:?}");
    }
    home.configure("ep", "engine: {}\n");
    fs::write(home.path("ep/unacked_results"), "in the way").unwrap();
    let failed = home.run(&["start", "ep"]);
    assert_eq!(failed.status, 73, "{failed:?}");
    fs::remove_file(home.path("ep/unacked_results")).unwrap();
    fs::write(home.path("ep/config.py"), "config = None").unwrap();
    assert!(home.run(&["start", "ep"]).err.contains("config.py"));
    assert_eq!(service.requests().len(), 0);
}

#[test]
fn start_does_not_wait_for_processes_that_a_setup_script_left() {
    let service = FakeService::start(|_| (200, registration(ID)));
    let home = Home::new(&service);
    home.configure("ep", "endpoint_setup: 'sleep 60 >/dev/null 2>&1 & echo $! > sleeper'\nengine: {}\n");
    let mut started = home.shell(&format!(
        "cd {} && {} start ep",
        home.path("").display(),
        env!("CARGO_BIN_EXE_globus-compute-endpoint")
    ));
    let output = started.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let sleeper: i32 = fs::read_to_string(home.path("sleeper")).unwrap().trim().parse().unwrap();
    assert!(home::alive(sleeper), "start did not wait for it");
    signal(sleeper, libc::SIGKILL);
    assert_eq!(home.run(&["stop", "ep"]).status, 0);
}

#[test]
fn without_a_service_or_an_identity_no_request_is_sent() {
    let service = FakeService::start(|_| (200, registration(ID)));
    let home = Home::new(&service);
    home.run(&["configure", "ep"]);
    let nowhere = home.command(&["start", "ep"]).env_remove("FARCALL_SERVICE_URL").output().unwrap();
    assert_eq!(nowhere.status.code(), Some(78));
    let nobody = home.command(&["start", "ep"]).env_remove("GLOBUS_COMPUTE_CLIENT_SECRET").output().unwrap();
    assert_eq!(nobody.status.code(), Some(77));
    assert_eq!(service.requests().len(), 0);
    let there = home.run(&["configure", "there", "--service-url", &service.url(), "--display-name", "There"]);
    assert_eq!(there.status, 0, "{there:?}");
    let started = home.command(&["start", "there"]).env_remove("FARCALL_SERVICE_URL").output().unwrap();
    assert_eq!(started.status.code(), Some(0), "{started:?}");
    home.run(&["stop", "there"]);
    let body: serde_json::Value = serde_json::from_str(&service.requests()[2].body).unwrap();
    assert_eq!(body["display_name"], "There");
}

/// Both forms of a manager's command: credentials and configuration come on standard input, and no HTTP request is sent.
#[test]
fn a_user_endpoint_starts_from_its_document() {
    let service = FakeService::start(|_| (500, json!({})));
    let home = Home::new(&service);
    let document = json!({"amqp_creds": registration(ID), "config": "engine: {}\n", "ep_info": {"posix_ppid": std::process::id()},
                          "allowed_functions": []});
    for command in [&["start", "uep.a.b", "--die-with-parent"][..], &["_start-user-endpoint", "uep.a.b"]] {
        let mut child = home.command(command).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(document.to_string().as_bytes()).unwrap();
        let log = home.path("uep.a.b/endpoint.log");
        wait_until(|| fs::read_to_string(&log).is_ok_and(|log| log.contains("the endpoint runs")));
        assert_eq!(
            home.pid("uep.a.b"),
            i32::try_from(child.id()).unwrap(),
            "it runs in the foreground, in the same process"
        );
        signal(i32::try_from(child.id()).unwrap(), libc::SIGTERM);
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(0));
        assert_eq!(
            String::from_utf8(ended.stdout).unwrap(),
            format!("Starting endpoint; registered ID: {ID}\n")
        );
        fs::remove_file(&log).unwrap();
    }
    assert_eq!(service.requests().len(), 0);
    assert!(!home.run(&["list"]).out.contains("uep"), "without a config.yaml it is not listed");
}

#[test]
fn a_user_endpoint_refuses_to_run_below_another_process_than_its_manager() {
    let service = FakeService::start(|_| (500, json!({})));
    let home = Home::new(&service);
    let document = json!({"config": "engine: {}\n", "ep_info": {"posix_ppid": 1}});
    let mut command = home.command(&["start", "uep.a.b", "--die-with-parent"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(document.to_string().as_bytes()).unwrap();
    let ended = child.wait_with_output().unwrap();
    let text = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(75), "{text}");
    assert!(text.contains("was started by process 1, but its parent is"), "{text}");
}

/// With such a report, the service would consider the running endpoint failed.
#[test]
fn a_second_start_of_a_user_endpoint_reports_no_failure() {
    let service = FakeService::start(|_| (500, json!({})));
    let home = Home::new(&service);
    let start = |credentials: serde_json::Value| {
        let document = json!({"amqp_creds": credentials, "config": "engine: {}\n"});
        let mut command = home.command(&["start", "uep", "--die-with-parent"]);
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(document.to_string().as_bytes()).unwrap();
        child
    };
    let mut first = start(registration(ID));
    wait_until(|| {
        fs::read_to_string(home.path("uep/endpoint.log")).is_ok_and(|log| log.contains("the endpoint runs"))
    });
    // A broker that must not be contacted.
    let broker = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    broker.set_nonblocking(true).unwrap();
    let mut credentials = registration(ID);
    for queue in ["task_queue_info", "result_queue_info", "heartbeat_queue_info"] {
        credentials[queue]["connection_url"] = format!("amqp://u:p@{}/", broker.local_addr().unwrap()).into();
    }
    let second = start(credentials).wait_with_output().unwrap();
    assert_eq!(second.status.code(), Some(255), "{second:?}");
    assert_eq!(broker.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    signal(i32::try_from(first.id()).unwrap(), libc::SIGTERM);
    assert!(first.wait().unwrap().success());
}

#[test]
fn a_user_endpoint_dies_with_its_manager() {
    let service = FakeService::start(|_| (500, json!({})));
    let home = Home::new(&service);
    // Each with what happens to it right before its manager dies: it may be stopped, or be stopping in order.
    for (name, before) in [("plain", None), ("stopped", Some(libc::SIGSTOP)), ("ending", Some(libc::SIGTERM))]
    {
        let config = format!(
            "engine: {{}}\nshutdown_grace: 3600\nendpoint_teardown: 'touch {}'\n",
            home.path(name).join("torn_down").display()
        );
        let document = json!({"amqp_creds": registration(ID), "config": config});
        fs::write(home.path("document.json"), document.to_string()).unwrap();
        let script = format!(
            "{} start {name} --die-with-parent < {} & wait",
            env!("CARGO_BIN_EXE_globus-compute-endpoint"),
            home.path("document.json").display()
        );
        let mut manager = home.shell(&script).spawn().unwrap();
        let log = home.path(name).join("endpoint.log");
        let said = |text: &str| fs::read_to_string(&log).is_ok_and(|log| log.contains(text));
        wait_until(|| said("the endpoint runs"));
        let pid = home.pid(name);
        if let Some(number) = before {
            signal(pid, number);
        }
        manager.kill().unwrap();
        manager.wait().unwrap();
        let killed = Instant::now();
        wait_until(|| !home::alive(pid));
        assert!(killed.elapsed() < Duration::from_secs(10), "{name}: it is promised within 2 s");
        if name != "ending" {
            assert!(said("has gone away; initiating shut down"), "{name}");
            assert!(!home.path(name).join("torn_down").exists(), "{name}: the next start does that");
        }
        assert!(!home.path(name).join("daemon.pid").exists(), "{name}");
    }
}

#[test]
fn other_text_on_standard_input_is_ignored() {
    let service = FakeService::start(|_| (200, registration(ID)));
    let home = Home::new(&service);
    home.run(&["configure", "ep"]);
    for text in ["", "[]", "not JSON", "5"] {
        let mut child = home.command(&["start", "ep"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{text:?}");
        assert_eq!(home.run(&["stop", "ep"]).status, 0);
    }
    let mut child = home.command(&["start", "ep"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"{\"amqp_creds\": 5}").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "an invalid document is an error");
}

#[test]
fn unsupported_options_are_refused_by_name() {
    let service = FakeService::start(|_| (500, json!({})));
    let home = Home::new(&service);
    for (option, said) in [
        (
            "--allowed-domains=x",
            "--allowed-domains: creating an authentication policy is not part of this version",
        ),
        (
            "--auth-timeout=60",
            "--auth-timeout: creating an authentication policy is not part of this version",
        ),
        (
            "--high-assurance",
            "High Assurance(HA) endpoints require both a HA policy and a HA subscription id",
        ),
        ("--auth-policy=x", "1 validation error for UserEndpointConfigModel\nauthentication_policy\n"),
        ("--subscription-id=x", "1 validation error for UserEndpointConfigModel\nsubscription_id\n"),
    ] {
        let refused = home.run(&["configure", "ep", option]);
        assert_eq!(refused.status, 1, "{option}");
        assert!(refused.err.starts_with(&format!("Error: {said}")), "{refused:?}");
        assert!(!home.path("ep").exists());
    }
    assert_eq!(home.run(&["nonsense"]).status, 2);
    assert_eq!(home.run(&["version"]).out, "Globus Compute endpoint version: 3.8.0\n");
    assert_eq!(home.run(&["start", "--nonsense"]).status, 2);
    assert_eq!(home.run(&["configure", "00000000-0000-4000-8000-000000000000"]).status, 2);
}
