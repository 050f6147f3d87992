//! Tests of the other commands: their output, their exit status, and how they find the service.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::fake_service::FakeService;
use crate::home::{Home, alive, signal, wait_until};
use crate::{ID, home, registration};

#[test]
fn a_restart_stops_and_starts() {
    let service = FakeService::start(|_| (200, registration(ID)));
    let home = Home::new(&service);
    home.run(&["configure", "ep"]);
    let fresh = home.run(&["restart", "ep"]);
    assert_eq!(fresh.status, 0, "{fresh:?}");
    assert_eq!(fresh.err, "> Endpoint <ep> is not active.\n");
    let pid = home.pid("ep");
    let again = home.run(&["restart", ID]);
    assert_eq!((again.status, again.err.as_str()), (0, "> Endpoint <ep> is now stopped\n"), "{again:?}");
    assert!(!home::alive(pid) && home::alive(home.pid("ep")));
    home.run(&["stop", "ep"]);
}

#[test]
fn delete_asks_and_deletes_at_the_service() {
    let service = FakeService::start(|request| match request.line.as_str() {
        line if line.starts_with("GET") => (200, json!({"status": "offline"})),
        line if line.starts_with("DELETE") => (200, json!({"result": 302})),
        _ => (200, registration(ID)),
    });
    let home = Home::new(&service);
    home.run(&["configure", "ep"]);
    home.run(&["start", "ep"]);
    home.run(&["stop", "ep"]);
    let unanswered = home.run(&["delete", "ep"]);
    assert_eq!(unanswered.status, 1);
    assert!(
        unanswered.out.starts_with("Are you sure you want to delete endpoint < ep >? [y/N]: "),
        "{unanswered:?}"
    );
    assert!(unanswered.err.ends_with("Aborted!\n"), "{unanswered:?}");
    let deleted = home.run(&["delete", ID, "--yes"]);
    let path = home.path("ep").display().to_string();
    assert_eq!(
        deleted.err,
        format!(
            "> Endpoint {ID} has been deleted from the web service\n> Endpoint {path} has been deleted from {path}\n"
        )
    );
    assert!(!home.path("ep").exists());
    assert_eq!(service.requests().last().unwrap().line, format!("DELETE /v2/endpoints/{ID}"));
    assert!(home.run(&["delete", "ep", "--yes"]).err.contains("There is no endpoint configuration"));
}

#[test]
fn delete_keeps_an_endpoint_that_the_service_does_not_delete() {
    let service = FakeService::start(|request| match request.line.as_str() {
        line if line.starts_with("GET") => (200, json!({"status": "online"})),
        line if line.starts_with("DELETE") => (403, json!({"code": "FORBIDDEN"})),
        _ => (200, registration(ID)),
    });
    let home = Home::new(&service);
    home.configure("ep", "engine: {}\n");
    fs::write(home.path("ep/endpoint.json"), format!("{{\"endpoint_id\": \"{ID}\"}}")).unwrap();
    let online = home.run(&["delete", "ep", "--yes"]);
    assert_eq!(online.status, 255, "{online:?}");
    assert!(online.err.contains("is currently running.  To proceed with deletion"), "{online:?}");
    let forced = home.run(&["delete", "ep", "--yes", "--force"]);
    assert_eq!(forced.status, 0, "{forced:?}");
    assert!(
        forced.err.contains("could not be deleted from the web service: [{\"code\":\"FORBIDDEN\"}]"),
        "{forced:?}"
    );
    assert!(!home.path("ep").exists());
    let unknown = home.run(&["delete", ID, "--yes"]);
    assert!(unknown.err.contains("Please add the --force flag"), "{unknown:?}");
}

#[test]
fn tables_as_json() {
    let service = FakeService::start(|_| (200, registration(ID)));
    let home = Home::new(&service);
    home.run(&["configure", "ep"]);
    let listed = home.run(&["list", "--output", "json"]).out;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(
        listed,
        json!([{"endpoint_id": null, "status": "Initialized", "name": "ep", "host": null,
                              "failure": null}])
    );
}

#[test]
fn an_endpoint_on_another_host_is_named() {
    let service = FakeService::start(|_| (200, registration(ID)));
    let home = Home::new(&service);
    home.configure("ep", "engine: {}\n");
    fs::write(home.path("ep/endpoint.json"), format!("{{\"endpoint_id\": \"{ID}\"}}")).unwrap();
    let record = "login02\n30\n17\n4711\nanother boot\npid:[1]\n";
    fs::write(home.path("ep/daemon.pid"), "17\n").unwrap();
    fs::write(home.path("ep/daemon.host"), record).unwrap();
    let listed = home.run(&["list"]);
    assert!(listed.out.contains("| Running "), "{listed:?}");
    assert_eq!(listed.err, "> ep runs on login02\n");
    let stopped = home.run(&["stop", "ep"]);
    assert_eq!(stopped.status, 1);
    assert!(stopped.err.contains("Endpoint <ep> runs on login02"), "{stopped:?}");
    let started = home.run(&["start", "ep"]);
    assert_eq!(
        (started.status, started.err.as_str()),
        (255, "Endpoint 'ep' is already active, on login02\n")
    );
    // A process that has been silent for long may only be suspended: a look at it removes nothing.
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_500_000_000);
    for file in ["ep/daemon.pid", "ep/daemon.host"] {
        fs::File::options().write(true).open(home.path(file)).unwrap().set_modified(old).unwrap();
    }
    assert!(home.run(&["list"]).out.contains("| Disconnected "));
    let stopped = home.run(&["stop", "ep"]);
    assert_eq!(stopped.status, 1);
    assert!(
        stopped.err.contains("ran on login02, which has not been heard of for long: stop it there"),
        "{stopped:?}"
    );
    assert_eq!(fs::read_to_string(home.path("ep/daemon.host")).unwrap(), record);
    assert_eq!(service.requests().len(), 0);
}

#[test]
fn stop_remote_locks_at_the_service() {
    let service = FakeService::start(|request| match request.line.as_str() {
        line if line.ends_with("/lock") => (200, json!({})),
        _ => (200, registration(ID)),
    });
    let home = Home::new(&service);
    home.configure("ep", "engine: {}\n");
    let unknown = home.run(&["stop", "--remote", "ep"]);
    assert_eq!((unknown.status, unknown.err.as_str()), (1, "Error: Endpoint <ep> could not be located\n"));
    assert_eq!(service.requests().len(), 0);
    assert_eq!(home.run(&["start", "ep"]).status, 0);
    let stopped = home.run(&["stop", "--remote", "ep"]);
    assert_eq!((stopped.status, stopped.err.as_str()), (0, "> Endpoint <ep> is now stopped\n"));
    assert_eq!(service.requests().last().unwrap().line, format!("POST /v3/endpoints/{ID}/lock"));
    // The service is asked even if the endpoint runs on another machine or nowhere.
    let elsewhere = home.run(&["stop", "--remote", ID]);
    assert_eq!((elsewhere.status, elsewhere.err.as_str()), (0, "> Endpoint <ep> is not active.\n"));
    let locks = service.requests().iter().filter(|request| request.line.ends_with("/lock")).count();
    assert_eq!(locks, 2);
}

#[test]
fn logout_is_refused_while_an_endpoint_runs() {
    let service = FakeService::start(|_| (200, registration(ID)));
    let home = Home::new(&service);
    for name in ["one", "two"] {
        home.run(&["configure", name]);
    }
    assert_eq!(home.run(&["start", "one"]).status, 0);
    let spared = home.run(&["logout"]);
    assert_eq!(spared.status, 0);
    assert_eq!(
        spared.err,
        "> The following endpoints are currently running: one\nPlease use logout --force to proceed\n"
    );
    let pid = home.pid("one");
    let forced = home.run(&["logout", "--force"]);
    assert_eq!(forced.status, 0, "{forced:?}");
    assert!(
        forced.err.starts_with(
            "> Logout succeeded and all cached credentials were revoked\n> The environment still"
        ),
        "{forced:?}"
    );
    assert!(home::alive(pid), "the running endpoint goes on");
    assert_eq!(home.run(&["stop", "one"]).status, 0);
    assert_eq!(home.run(&["logout"]).status, 0);
}

/// The site file, the environment, the configuration, and the service of the last start.
#[test]
fn the_order_of_settings_that_name_the_service() {
    let service = FakeService::start(|_| (200, registration(ID)));
    let home = Home::new(&service);
    home.run(&["configure", "ep"]);
    let site = home.path("site.yaml");
    fs::write(&site, format!("service_url: {}\n", service.url())).unwrap();
    let bare = |words: &[&str], site: &str| {
        let mut command = home.command(words);
        command.env_remove("FARCALL_SERVICE_URL").env("FARCALL_SITE_FILE", site);
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, err) = bare(&["start", "ep"], "/nowhere/site.yaml");
    assert_eq!(status, 78);
    for word in ["service_url", "FARCALL_SERVICE_URL", "GLOBUS_SDK_ENVIRONMENT", "/nowhere/site.yaml"] {
        assert!(err.contains(word), "{err}");
    }
    for command in [&["login"][..], &["logout"], &["whoami"]] {
        assert_eq!(bare(command, "/nowhere/site.yaml").0, 78, "{command:?}");
    }
    let (status, err) = bare(&["start", "ep"], &site.display().to_string());
    assert_eq!(status, 0, "{err}");
    home.run(&["stop", "ep"]);
    let (status, err) = bare(&["start", "ep"], "/nowhere/site.yaml");
    assert_eq!(status, 0, "it uses the service of the last start: {err}");
    home.run(&["stop", "ep"]);
    fs::write(&site, "service-url: x\n").unwrap();
    let (status, err) = bare(&["whoami"], &site.display().to_string());
    assert_eq!(status, 78);
    assert!(err.contains("extra fields not permitted") && err.contains("service_url"), "{err}");
}

#[test]
fn a_configuration_is_checked_and_rendered_without_a_service() {
    let service = FakeService::start(|_| (500, json!({})));
    let home = Home::new(&service);
    home.configure("ep", "engine:\n  type: GlobusComputeEngine\n  max_worker_per_node: 2\n");
    let bad = home.run(&["check", "ep"]);
    assert_eq!(bad.status, 1);
    let path = home.path("ep/config.yaml").display().to_string();
    assert_eq!(
        bad.err,
        format!(
            "Error: 1 validation error for UserEndpointConfigModel\nengine\n  HighThroughputExecutor.__init__() got an \
             unexpected keyword argument 'max_worker_per_node' (type=value_error)\n\n --> {path}:3:3\n  |\n3 |   \
             max_worker_per_node: 2\n  |   ^^^^^^^^^^^^^^^^^^^\n  = help: the nearest name there is: \
             max_workers_per_node\n\n"
        )
    );
    home.configure("ep", "engine:\n  provider:\n    type: SlurmProvider\n    walltime: 1:30:00\n");
    let later = home.run(&["check", "ep"]);
    assert_eq!(later.status, 78);
    assert!(later.err.contains("SlurmProvider is not part of this version yet; meanwhile"), "{later:?}");
    assert_eq!(home.run(&["start", "ep"]).status, 78);
    let rendered: serde_json::Value = serde_json::from_str(&home.run(&["render", "ep"]).out).unwrap();
    assert_eq!(rendered["engine"]["provider"]["walltime"], "1:30:00");
    assert_eq!(rendered["engine"]["provider"]["launcher"]["type"], "SingleNodeLauncher");
    assert_eq!(rendered["heartbeat_period"], 30);
    home.configure("ep", "engine: {}\n");
    let good = home.run(&["check", &path]);
    assert_eq!((good.status, good.out), (0, format!("{path}: good\n")));
    assert_eq!(service.requests().len(), 0);
}

/// An endpoint reports its nodes only to the service, so `doctor` asks there.
#[test]
fn doctor_reports_nodes_that_start_and_missing_workers() {
    let details = json!({"managers": 2, "starting_managers": 1, "total_workers": 3, "slots_missing": "node 1 on vm: a reason"});
    let service = FakeService::start(move |request| match request.line.as_str() {
        line if line.ends_with("/status") => (200, json!({"status": "online", "details": details})),
        _ => (200, registration(ID)),
    });
    let home = Home::new(&service);
    home.configure("ep", "engine: {}\n");
    let nodes = || {
        let report = home.run(&["doctor", "ep", "--output", "json"]);
        let report: serde_json::Value = serde_json::from_str(&report.out).unwrap();
        report.as_array().unwrap().iter().find(|finding| finding["what"] == "nodes").cloned()
    };
    assert_eq!(nodes(), None, "it was never registered");
    fs::write(home.path("ep/endpoint.json"), format!("{{\"endpoint_id\": \"{ID}\"}}")).unwrap();
    let finding = nodes().unwrap();
    assert_eq!(finding["good"], false);
    let text = finding["text"].as_str().unwrap();
    assert!(text.contains("still starting their workers: 1") && text.ends_with("a reason"), "{text}");
}

#[test]
fn shells_and_modules() {
    let service = FakeService::start(|_| (500, json!({})));
    let home = Home::new(&service);
    let script = home.run(&["completion", "bash"]);
    assert!(script.status == 0 && script.out.contains("enable-on-boot"), "{script:?}");
    let module = home.run(&["python-exec", "platform", "--terse"]);
    assert!(module.status == 0 && module.out.contains("Linux"), "{module:?}");
    let mistyped = home.run(&["lsit"]);
    assert_eq!(mistyped.status, 2);
    assert!(mistyped.err.ends_with("Error: No such command 'lsit'. Did you mean 'list'?\n"), "{mistyped:?}");
    let later = home.run(&["update_funcx_config"]);
    assert!(later.status == 1 && later.err.contains("not part of this version yet; meanwhile"), "{later:?}");
}

/// A start ends the nodes that a dead run of the endpoint left running.
#[test]
fn leftover_nodes_are_ended() {
    let service = FakeService::start(|_| (200, registration(ID)));
    let home = Home::new(&service);
    // This launcher detaches its node from the endpoint.
    let config = "engine:\n  type: GlobusComputeEngine\n  provider:\n    type: LocalProvider\n    init_blocks: 1\n    \
                  launcher: {type: WrappedLauncher, prepend: 'setsid --fork --wait'}\n";
    for name in ["ep", "other"] {
        home.configure(name, config);
        let started = home.run(&["start", name]);
        assert_eq!(started.status, 0, "{started:?}");
        wait_until(|| node_of(&home, name).is_some());
    }
    let [(own, file), (others, _)] = ["ep", "other"].map(|name| node_of(&home, name).unwrap());
    // The node is stopped while its endpoint dies, as on a suspended machine: otherwise it would notice that and end.
    signal(own, libc::SIGSTOP);
    signal(home.pid("ep"), libc::SIGKILL);
    let mut viewer = Command::new("tail").arg("-f").arg(file).stdout(Stdio::null()).spawn().unwrap();
    wait_until(|| !alive(home.pid("ep")));
    assert!(alive(own));

    assert_eq!(home.run(&["start", "ep"]).status, 0);
    assert!(!alive(own), "the node of the run that died");
    assert!(alive(others), "the node of another endpoint");
    assert!(viewer.try_wait().unwrap().is_none(), "a program that has a file of the endpoint open");
    viewer.kill().unwrap();
    viewer.wait().unwrap();
    let log = fs::read_to_string(home.path("ep/endpoint.log")).unwrap();
    assert!(log.contains("It had left 1 node(s) running; they were ended."), "{log}");
    for name in ["ep", "other"] {
        home.run(&["stop", name]);
    }
}

/// The process of an endpoint's node and the node's configuration file, if it has one.
fn node_of(home: &Home, name: &str) -> Option<(i32, String)> {
    let directory = home.path(name).display().to_string();
    fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        let mut words = line.split('\0').skip(1);
        let is_node = words.next() == Some("node");
        let file = words.find(|word| word.starts_with(&directory)).filter(|_| is_node)?;
        Some((entry.file_name().to_str()?.parse().ok()?, file.to_owned()))
    })
}

#[test]
fn the_log_can_be_seen_on_the_console() {
    let service = FakeService::start(|_| (200, registration(ID)));
    let home = Home::new(&service);
    home.configure("ep", "detach_endpoint: false\nengine: {}\n");
    let mut child = home
        .command(&["start", "ep", "--log-to-console", "--debug"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let log = home.path("ep/endpoint.log");
    wait_until(|| fs::read_to_string(&log).is_ok_and(|log| log.contains("the endpoint runs")));
    signal(i32::try_from(child.id()).unwrap(), libc::SIGTERM);
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}");
    let mut shown = String::new();
    std::io::Read::read_to_string(child.stderr.as_mut().unwrap(), &mut shown).unwrap();
    assert!(shown.contains("the endpoint runs"), "{shown}");
}
