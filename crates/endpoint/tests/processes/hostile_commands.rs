//! Ten thousand commands that whoever has taken over the service, or stands between it and a manager, might send. The person
//! whom they name is one whom the manager would start a user endpoint for.

use std::fs;

use serde_json::{Value, json};

use crate::home::wait_until;
use crate::manager::{PERSON, Scene};
use crate::queues::now;

/// How many, at least.
const MANY: usize = 10_000;

/// Maps the person to an account that every machine has, and that may do nothing.
const MAPPING: &str = r#"[{"DATA_TYPE": "expression_identity_mapping#1.0.0",
    "mappings": [{"source": "{username}", "match": "alice@example.edu", "output": "nobody"}]}]"#;

/// A command as it goes to the queue.
struct Sent {
    content_type: &'static str,
    timestamp: Option<u64>,
    body: Vec<u8>,
}

#[test]
fn ten_thousand_hostile_commands_create_nothing() {
    let mut scene = Scene::serving(PERSON, MAPPING);
    let home = |scene: &Scene| {
        let mut names: Vec<_> =
            fs::read_dir(scene.home.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = home(&scene);
    let good = scene.command("hostile");
    let mut sent = malformed(&good);
    sent.extend(of_another_time(&good));
    sent.extend(cut_off(&good));
    sent.extend(of_nobody(&good));
    sent.extend(random(&good, MANY.saturating_sub(sent.len())));
    assert!(sent.len() >= MANY, "{}", sent.len());
    for Sent { content_type, timestamp, body } in &sent {
        scene.commands.send_as(content_type, body, *timestamp);
    }
    wait_until(|| scene.commands.waiting() == 0);
    assert_eq!(scene.manager.try_wait().unwrap(), None, "it lives");
    assert_eq!(home(&scene), before);
    let log = scene.log();
    for trace in ["Creating new user endpoint", "launcher", "panicked"] {
        assert!(!log.contains(trace), "{trace}");
    }
    let line = |is_bad: fn(&&str) -> bool| log.lines().find(is_bad);
    assert_eq!(line(|line| line.contains(":p@")), None, "a password is in the log");
    assert_eq!(line(|line| line.len() >= 4_000), None, "a line is as long as a command");
    let children = format!("/proc/{0}/task/{0}/children", scene.manager.id());
    assert_eq!(fs::read_to_string(children).unwrap(), "");
    // The command that they were made of is one that would start a user endpoint. Only as root, for another account.
    if nix::unistd::Uid::effective().is_root() {
        scene.commands.send(good.to_string().as_bytes(), Some(now()));
        wait_until(|| scene.log().contains("Creating new user endpoint"));
    }
}

/// One with this body, of now.
fn of_now(body: impl Into<Vec<u8>>) -> Sent {
    Sent { content_type: "application/json", timestamp: Some(now()), body: body.into() }
}

fn changed(good: &Value, pointer: &str, value: Value) -> Sent {
    let mut command = good.clone();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    command.pointer_mut(parent).unwrap()[name] = value;
    of_now(command.to_string())
}

fn without(good: &Value, pointer: &str) -> Sent {
    let mut command = good.clone();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    command.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name).unwrap();
    of_now(command.to_string())
}

/// Fields that are missing, of another type, or too large, and names that lead elsewhere.
fn malformed(good: &Value) -> Vec<Sent> {
    const FIELDS: [&str; 7] = [
        "/command",
        "/globus_username",
        "/globus_effective_identity",
        "/globus_identity_set",
        "/kwargs",
        "/kwargs/name",
        "/kwargs/amqp_creds",
    ];
    let credentials = ["endpoint_id", "task_queue_info", "result_queue_info", "heartbeat_queue_info"]
        .map(|name| format!("/kwargs/amqp_creds/{name}"));
    let mut sent: Vec<Sent> = FIELDS.iter().map(|field| without(good, field)).collect();
    // Not the queues: a user endpoint says itself what it misses.
    sent.push(without(good, &credentials[0]));
    let deep = |levels: usize| {
        serde_json::from_str::<Value>(&format!("{}{}", "[".repeat(levels), "]".repeat(levels)))
    };
    let wrong = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1.5),
        json!(u64::MAX),
        json!({"a": {"b": [null, {}]}}),
        json!(["a", 1, null]),
        deep(100).unwrap(),
        json!("\u{0}"),
        json!("x".repeat(100_000)),
    ];
    for value in &wrong {
        for field in FIELDS.iter().filter(|field| **field != "/globus_username" || !value.is_string()) {
            sent.push(changed(good, field, value.clone()));
        }
        sent.push(changed(good, &credentials[0], value.clone()));
        if !value.is_null() {
            sent.push(changed(good, "/args", if value.is_array() { json!([value]) } else { value.clone() }));
        }
        if !value.is_null() && !value.is_object() {
            sent.push(changed(good, "/kwargs/user_opts", value.clone()));
            sent.push(changed(good, "/kwargs/user_runtime", value.clone()));
        }
        for (field, value) in [("sub", value.clone()), ("sub", json!([value]))] {
            sent.push(changed(good, "/globus_identity_set", json!([{field: value}])));
        }
    }
    for word in ["", "cmd_stop_endpoint", "CMD_START_ENDPOINT", "cmd_start_endpoint ", "__class__", "exec"] {
        sent.push(changed(good, "/command", word.into()));
    }
    let mut names: Vec<String> = [
        "",
        ".",
        "..",
        "/",
        "mep",
        "default",
        "uep",
        "uep.",
        "uep..",
        "uep.a..b",
        "uep.a/b",
        "uep.a/../../b",
        "../uep.a",
        "/etc/passwd",
        "uep.a\0b",
        "uep.a\nb",
        "uep. ",
        "uep.ä",
        "uep.\u{202e}",
        "uep.$HOME",
        "uep.`id`",
        "uep.;reboot",
        "uep.%s%n",
        "uep.{{x}}",
        "uep.*",
        "uep.~",
        "uep.a\\b",
        "uep.\u{1b}[2J",
        "Uep.a",
        " uep.a",
        "uep.a ",
        "-uep.a",
        "--help",
        "uep.a:b",
        "uep.a=b",
        "uep.a'b",
        "uep.a\"b",
        "uep.a&b",
        "uep.a|b",
        "uep.a>b",
        "uep.a<b",
        "uep.a(b)",
    ]
    .map(str::to_owned)
    .into();
    names.extend([125, 200, 255, 256, 4_096, 100_000].map(|length| format!("uep.{}", "a".repeat(length))));
    sent.extend(names.into_iter().map(|name| changed(good, "/kwargs/name", name.into())));
    sent.push(changed(good, "/args", json!(vec!["-x"; 65])));
    sent.push(changed(good, "/args", json!(["x".repeat(4_097)])));
    sent.push(changed(good, "/args", json!(["a\0b"])));
    sent.push(changed(good, "/globus_identity_set", json!(vec![json!({"sub": PERSON}); 257])));
    for size in [(1 << 20) - 200, 1 << 20, 2 << 20] {
        sent.push(changed(good, "/kwargs/user_opts", json!({"x": "x".repeat(size)})));
    }
    sent.push(of_now(good.to_string().replace(
        "\"user_opts\":{}",
        &format!("\"user_opts\":{{\"a\":{}1{}}}", "[".repeat(5_000), "]".repeat(5_000)),
    )));
    sent
}

/// Replays of an earlier command, commands of the future, and those that do not say when they were sent.
fn of_another_time(good: &Value) -> Vec<Sent> {
    let body = good.to_string().into_bytes();
    let at = |timestamp| Sent { timestamp, ..of_now(body.clone()) };
    let mut sent: Vec<Sent> = (0..300).map(|second| at(Some(now() - 200 - second * second))).collect();
    sent.extend((0..20).map(|minute| at(Some(now() + 300 + minute * 60))));
    sent.extend([None, Some(0), Some(u64::MAX), Some(i64::MAX as u64)].map(at));
    for content_type in
        ["", "text/plain", "application/json; charset=utf-8", "APPLICATION/JSON", "application/python-pickle"]
    {
        sent.push(Sent { content_type, ..of_now(body.clone()) });
    }
    sent
}

/// The beginnings of a command.
fn cut_off(good: &Value) -> Vec<Sent> {
    let body = good.to_string().into_bytes();
    (0..body.len()).map(|length| of_now(&body[..length])).collect()
}

/// Commands with a wrong letter, of a person whom the manager does not serve.
fn of_nobody(good: &Value) -> Vec<Sent> {
    let text = good.to_string().replace(PERSON, "00000000-0000-4000-8000-00000000000b");
    let body = text.replace("alice@example.edu", "mallory@example.net").into_bytes();
    let mut sent = Vec::new();
    for at in (0..body.len()).step_by(4) {
        for letter in [b'"', 0xff] {
            let mut changed = body.clone();
            changed[at] = letter;
            sent.push(of_now(changed));
        }
    }
    sent
}

/// Pieces of a command in another order, without what it needs.
fn random(good: &Value, count: usize) -> Vec<Sent> {
    let body = good.to_string().replace("amqp_creds", "creds").into_bytes();
    let mut state: usize = 88_172_645_463_325_252;
    let mut next = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let piece = |_| {
        let mut pieces = Vec::new();
        for _ in 0..4 {
            let begin = next(body.len());
            pieces.extend_from_slice(&body[begin..(begin + next(200)).min(body.len())]);
        }
        of_now(pieces)
    };
    (0..count).map(piece).collect()
}
