//! A running manager and the broker: what it answers to commands, and what it survives. Nobody maps to a local user here;
//! starts as other users are shown end to end.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::fake_service::FakeService;
use crate::home::{Home, signal, wait_until};
use crate::queues::{Commands, now};

const ID: &str = "7b4a1a3e-3f55-4c7e-9d1a-0f4f0b6f8c21";
pub(crate) const PERSON: &str = "00000000-0000-4000-8000-00000000000a";

/// A manager in a directory of its own, and its command queue.
pub(crate) struct Scene {
    pub(crate) home: Home,
    pub(crate) manager: Child,
    pub(crate) commands: Commands,
    _service: FakeService,
}

impl Scene {
    fn new() -> Self {
        // Whoever runs the tests as an ordinary user has this identity.
        Self::serving("00000000-0000-4000-8000-0000000000ff", "[]")
    }

    /// One that serves this identity if an ordinary user runs the tests, and otherwise whom the mapping maps.
    pub(crate) fn serving(owner: &'static str, people: &str) -> Self {
        let (registration, commands) = Commands::of_manager(ID);
        let service = FakeService::start(move |request| match request.line.as_str() {
            "GET /v2/oauth2/userinfo" => (200, json!({"sub": owner})),
            _ => (200, registration.clone()),
        });
        let home = Home::new(&service);
        let mapping = home.path("mapping.json");
        fs::write(&mapping, people).unwrap();
        home.configure(
            "mep",
            &json!({"multi_user": true, "identity_mapping_config_path": mapping}).to_string(),
        );
        fs::write(home.path("mep/user_config_template.yaml.j2"), "engine: {}\n").unwrap();
        let manager = home.command(&["start", "mep"]).stderr(Stdio::piped()).spawn().unwrap();
        let log = home.path("mep/endpoint.log");
        wait_until(|| fs::read_to_string(&log).is_ok_and(|log| log.contains("the manager runs")));
        Self { home, manager, commands, _service: service }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.path("mep/endpoint.log")).unwrap()
    }

    /// A well-formed command, and the queue in which its notice arrives.
    pub(crate) fn command(&self, name: &str) -> Value {
        json!({
            "command": "cmd_start_endpoint",
            "globus_username": "alice@example.edu",
            "globus_effective_identity": PERSON,
            "globus_identity_set": [{"sub": PERSON, "status": "used", "username": "alice@example.edu"}],
            "kwargs": {"name": format!("uep.{ID}.{name}"), "user_opts": {}, "amqp_creds": self.commands.credentials(name)},
        })
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.manager.kill();
        let _ = self.manager.wait();
    }
}

/// What nobody may start is told with upstream's words; which words depends on whether the tests run as root.
fn refusal(text: &str) -> bool {
    let who = "\n  Globus effective identity: 00000000-0000-4000-8000-00000000000a\n  Globus username: alice@example.edu";
    text == format!("Identity failed to map to a local user name.  (LookupError) {who}")
        || text == format!("Ignoring start request for untrusted identity.{who}")
}

#[test]
fn commands_are_answered_and_none_ends_the_manager() {
    let mut scene = Scene::new();
    let notice = scene.commands.ask(&scene.command("plain"), Some(now()), "plain");
    assert!(refusal(&notice), "{notice}");

    let old = scene.commands.ask(&scene.command("old"), Some(now() - 181), "old");
    assert!(
        old.starts_with(
            "Ignoring command from server\nCommand too old or skew between system clocks is too large.\n  Command timestamp:  "
        ),
        "{old}"
    );
    let timeless = scene.commands.ask(&scene.command("timeless"), None, "timeless");
    assert!(timeless.starts_with("Ignoring command from server\nCommand has no timestamp."), "{timeless}");

    let hostile = [
        json!([]),
        json!("x".repeat(100_000)),
        json!({"command": "cmd_start_endpoint", "kwargs": {"name": "../../etc"}}),
        json!({"command": {"a": [1, 2, 3]}, "kwargs": null, "globus_identity_set": 5}),
        json!({"kwargs": {"amqp_creds": {"endpoint_id": "x"}}}),
    ];
    for round in 0..2_000_u64 {
        let body = &hostile[usize::try_from(round).unwrap() % hostile.len()];
        scene.commands.send(body.to_string().as_bytes(), Some(now()));
        scene.commands.send(&body.to_string().as_bytes()[..1], None);
    }
    let notice = scene.commands.ask(&scene.command("after"), Some(now()), "after");
    assert!(refusal(&notice), "{notice}");
    wait_until(|| scene.commands.waiting() == 0);
    assert_eq!(scene.manager.try_wait().unwrap(), None, "it lives");
    let directory: Vec<_> =
        fs::read_dir(scene.home.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(
        directory.iter().all(|name| ["mep", "mapping.json", "storage.db"].contains(&name.to_str().unwrap())),
        "{directory:?}"
    );
    assert!(!scene.log().contains(":p@"), "no password is in the log");
}

#[test]
fn a_second_instance_is_refused_and_takes_no_command() {
    let scene = Scene::new();
    let second = scene.home.run(&["start", "mep"]);
    assert_eq!((second.status, second.err.contains("is already active")), (255, true), "{second:?}");
    assert!(scene.home.listed().contains(&[ID.into(), "Running".into(), "mep".into()]));
    let stopped = scene.home.run(&["stop", "mep"]);
    assert_eq!((stopped.status, stopped.err.as_str()), (0, "> Endpoint <mep> is now stopped\n"));
    assert!(scene.log().trim_end().ends_with(&format!("---------- Endpoint Manager ends: {ID}")));
}

/// As a site upgrades: the new program is put beside the old one, and a link is moved.
#[test]
fn a_manager_in_the_background_is_restarted_through_the_link_by_which_it_was_started() {
    const PROGRAM: &str = "globus-compute-endpoint";
    let (registration, _commands) = Commands::of_manager(ID);
    let service = FakeService::start(move |request| match request.line.as_str() {
        "GET /v2/oauth2/userinfo" => (200, json!({"sub": PERSON})),
        _ => (200, registration.clone()),
    });
    let home = Home::new(&service);
    let mapping = home.path("mapping.json");
    fs::write(&mapping, "[]").unwrap();
    home.configure("mep", &json!({"multi_user": true, "identity_mapping_config_path": mapping}).to_string());
    fs::write(home.path("mep/user_config_template.yaml.j2"), "engine: {}\n").unwrap();
    for version in ["versions/1", "versions/2"] {
        fs::create_dir_all(home.path(version)).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_globus-compute-endpoint"), home.path(version).join(PROGRAM)).unwrap();
    }
    let current = home.path("versions/current");
    symlink("1", &current).unwrap();
    let started = home.shell(r#""$0" start mep --detach"#).arg(current.join(PROGRAM)).output().unwrap();
    assert!(started.status.success(), "{started:?}");
    let program = || fs::read_link(format!("/proc/{}/exe", home.pid("mep"))).unwrap();
    assert_eq!(program(), home.path("versions/1").join(PROGRAM));
    symlink("2", home.path("versions/draft")).unwrap();
    fs::rename(home.path("versions/draft"), &current).unwrap();
    signal(home.pid("mep"), libc::SIGHUP);
    wait_until(|| program() == home.path("versions/2").join(PROGRAM));
}

/// As root: an ordinary user's manager starts nobody else's user endpoints.
#[test]
fn files_that_others_can_change_keep_a_manager_from_starting() {
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let service = FakeService::start(|request| panic!("nothing is registered: {}", request.line));
    let home = Home::new(&service);
    let mapping = home.path("mapping.json");
    home.configure("mep", &json!({"multi_user": true, "identity_mapping_config_path": mapping}).to_string());
    fs::write(&mapping, "[]").unwrap();
    let template = home.path("mep/user_config_template.yaml.j2");
    fs::write(&template, "engine: {}\n").unwrap();
    let mode =
        |path: &std::path::Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for path in [home.path("mep/config.yaml"), mapping] {
        mode(&path, 0o666);
        let text = format!(
            "'{0}' decides about others' accounts, and can be changed by everybody, because '{0}' may be written by all;",
            path.display()
        );
        for command in ["check", "start"] {
            let ran = home.run(&[command, "mep"]);
            assert_eq!(ran.status, 77, "{ran:?}");
            assert!(ran.err.contains(&text) && ran.err.contains("do: chmod o-w"), "{ran:?}");
        }
        mode(&path, 0o644);
    }
    assert_eq!(home.run(&["check", "mep"]).status, 0);
    mode(&template, 0o666);
    let ran = home.run(&["check", "mep"]);
    assert_eq!(
        (ran.status, ran.err.contains(&format!("because '{}' may be written by all", template.display()))),
        (0, true),
        "{ran:?}"
    );
}
