//! Snapshots of every command's help, and of what each command prints when it succeeds.

use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::fake_service::FakeService;
use crate::home::Home;
use crate::{ID, registration};

const COMMANDS: [&str; 21] = [
    "configure",
    "start",
    "stop",
    "restart",
    "list",
    "delete",
    "login",
    "logout",
    "whoami",
    "version",
    "enable-on-boot",
    "disable-on-boot",
    "self-diagnostic",
    "python-exec",
    "check",
    "render",
    "migrate-to-template-capable",
    "render-user-config",
    "doctor",
    "completion",
    "help",
];

#[test]
fn every_commands_help() {
    let service = FakeService::start(|_| (500, json!({})));
    let home = Home::new(&service);
    let whole = home.run(&["--help"]);
    let known: Vec<_> = whole
        .out
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    for command in &known {
        assert!(COMMANDS.contains(command), "{command} has no snapshot");
    }
    let mut said = whole.out.clone();
    for command in known.into_iter().filter(|command| *command != "help") {
        let help = home.run(&[command, "--help"]);
        assert_eq!((help.status, help.err.as_str()), (0, ""), "{command}");
        said += &format!("\n$ globus-compute-endpoint {command} --help\n{}", help.out);
    }
    insta::assert_snapshot!(said);
}

/// A service that knows one person and one endpoint.
fn answer(line: &str) -> (u16, Value) {
    let ada = json!({"sub": "22222222-2222-4222-8222-222222222222", "preferred_username": "ada@example.org",
                     "name": "Ada L.", "email": "ada@mail.example.org", "identity_set": []});
    let identity = json!({"id": "22222222-2222-4222-8222-222222222222", "username": "ada@example.org",
                          "name": "Ada L.", "email": "ada@mail.example.org"});
    if line.contains("userinfo") {
        (200, ada)
    } else if line.contains("identities") {
        (200, json!({"identities": [identity]}))
    } else if line.ends_with("/status") {
        (200, json!({"status": "offline"}))
    } else if line.starts_with("DELETE") {
        (200, json!({"result": 302}))
    } else {
        (200, registration(ID))
    }
}

#[test]
fn what_each_command_prints() {
    let service = FakeService::start(|request| answer(&request.line));
    let home = Home::new(&service);
    let units = home.path("units");
    fs::create_dir(&units).unwrap();
    let mut said = String::new();
    for words in [
        &["list"][..],
        &["list", "--output", "json"],
        &["configure", "ep"],
        &["configure", "ep"],
        &["configure", "a b"],
        &["list"],
        &["check", "ep"],
        &["render", "ep"],
        &["start", "ep"],
        &["start", "ep"],
        &["list"],
        &["list", "--output", "json"],
        &["logout"],
        &["enable-on-boot", "ep"],
        &["stop", "ep"],
        &["stop", "ep"],
        &["restart", "ep"],
        &["stop", ID],
        &["enable-on-boot", "ep"],
        &["enable-on-boot", "ep"],
        &["disable-on-boot", "ep"],
        &["login"],
        &["whoami"],
        &["whoami", "--output", "json"],
        &["whoami", "--linked-identities"],
        &["logout"],
        &["version"],
        &["delete", "ep", "--yes"],
        &["start", "ep"],
        &["stop", "00000000-0000-4000-8000-000000000000"],
        &["disable-on-boot", "ep"],
        &["start", "--nonsense"],
        &["nonsense"],
    ] {
        let mut command = home.command(words);
        command.env("FARCALL_SYSTEMD_UNITS", &units);
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        said += &format!("$ globus-compute-endpoint {}\n{}", words.join(" "), text(&output.stdout));
        for line in text(&output.stderr).lines() {
            said += &format!("2> {line}\n");
        }
        if let Some(status @ 1..) = output.status.code() {
            said += &format!("[{status}]\n");
        }
        said.push('\n');
    }
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let said = said
        .replace(&home.path("").display().to_string(), "<BASE>/")
        .replace(&service.url(), "<SERVICE>/")
        .replace(&format!("\"host\": \"{host}\""), "\"host\": \"<HOST>\"");
    insta::assert_snapshot!(said);
}

#[test]
fn the_versions_of_both_programs() {
    let service = FakeService::start(|_| (500, json!({})));
    let said = Home::new(&service).run(&["--version"]);
    let ours = env!("CARGO_PKG_VERSION");
    let expected = format!("globus-compute-endpoint {ours} (Globus Compute endpoint version: 3.8.0)\n");
    assert_eq!((said.status, said.out), (0, expected));
}

/// As in `globus-compute-endpoint … | head -1`.
#[test]
fn output_into_a_closed_pipe() {
    let service = FakeService::start(|request| answer(&request.line));
    let home = Home::new(&service);
    let units = home.path("units");
    fs::create_dir(&units).unwrap();
    let lines: &[&[&str]] = &[
        &["--help"],
        &["--version"],
        &["nonsense"],
        &["configure", "ep"],
        &["check", "ep"],
        &["render", "ep"],
        &["render-user-config", "--endpoint", "ep"],
        &["doctor", "ep"],
        &["start", "ep"],
        &["list"],
        &["restart", "ep"],
        &["stop", "ep"],
        &["login"],
        &["whoami"],
        &["logout"],
        &["version"],
        &["self-diagnostic", "--print-only"],
        &["python-exec", "platform"],
        &["enable-on-boot", "ep"],
        &["disable-on-boot", "ep"],
        &["completion", "bash"],
        &["migrate-to-template-capable", "ep", "--yes"],
        &["delete", "ep", "--yes"],
    ];
    for command in COMMANDS.iter().filter(|command| **command != "help") {
        assert!(lines.iter().any(|line| line[0] == *command), "{command} is not in the table");
    }
    for (out, err) in [(true, false), (false, true), (true, true)] {
        for words in lines {
            let closed = || -> Stdio {
                let (reader, writer) = std::io::pipe().unwrap();
                drop(reader);
                writer.into()
            };
            let mut command = home.command(words);
            command.env("FARCALL_SYSTEMD_UNITS", &units);
            command.stdout(if out { closed() } else { Stdio::piped() });
            command.stderr(if err { closed() } else { Stdio::piped() });
            let done = command.spawn().unwrap().wait_with_output().unwrap();
            let said = [done.stdout, done.stderr].map(|it| String::from_utf8(it).unwrap()).concat();
            // Python reports a closed pipe in its own way.
            let status = done.status.code().filter(|status| *status != 101);
            assert!(
                status.is_some() && !said.contains("panicked"),
                "{words:?} {out} {err}: {} {said}",
                done.status
            );
        }
    }
}
