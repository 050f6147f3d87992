use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn now() -> Zoned {
    "2024-04-19T11:56:27-05:00[America/Chicago]".parse().unwrap()
}

const SENT: u64 = 1_713_545_787;
const SUBMITTER: &str = "\n  Globus effective identity: 00000000-0000-4000-8000-00000000000a\n  Globus username: alice@example.edu";

fn command() -> Value {
    let id: EndpointId = "00000000-0000-4000-8000-000000000002".parse().unwrap();
    json!({
        "command": "cmd_start_endpoint",
        "globus_username": "alice@example.edu",
        "globus_effective_identity": "00000000-0000-4000-8000-00000000000a",
        "globus_identity_set": [{"sub": "00000000-0000-4000-8000-00000000000a", "username": "alice@example.edu"}],
        "kwargs": {
            "name": "uep.00000000-0000-4000-8000-000000000001.00000000-0000-4000-8000-000000000002",
            "user_opts": {"worker_init": "true"},
            "user_runtime": {"python_version": "3.11.7"},
            "amqp_creds": Registration::new(id, "amqp://u:p@h/"),
        },
    })
}

fn read(command: &Value) -> Result<StartCommand, Refused> {
    let body = command.to_string();
    let message =
        Message { content_type: Some("application/json"), timestamp: Some(SENT), body: body.as_bytes() };
    StartCommand::read(message, &now())
}

/// The command with the member at this JSON pointer replaced, or removed.
fn with(pointer: &str, value: Option<Value>) -> Value {
    let mut command = command();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let object = command.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Some(value) => object.insert(name.to_owned(), value),
        None => object.remove(name),
    };
    command
}

fn notice(refused: &Refused) -> &str {
    &refused.notice.as_ref().unwrap().1
}

#[test]
fn a_command_of_the_service_is_read() {
    let command = read(&command()).unwrap();
    assert_eq!(command.name, "uep.00000000-0000-4000-8000-000000000001.00000000-0000-4000-8000-000000000002");
    assert_eq!(command.user_options.to_object()["worker_init"], "true");
    assert_eq!(command.submitter.lines(), SUBMITTER);
    assert_eq!(command.identities.len(), 1);
    assert_eq!(command.user_endpoint().unwrap().to_string(), "00000000-0000-4000-8000-000000000002");
    assert!(command.arguments.is_empty());
}

#[test]
fn an_old_command_and_one_without_a_timestamp_are_refused_with_upstreams_words() {
    let body = command().to_string();
    let at = |timestamp| {
        let message = Message { content_type: Some("application/json"), timestamp, body: body.as_bytes() };
        StartCommand::read(message, &now())
    };
    assert_eq!(
        notice(&at(Some(SENT - 181)).unwrap_err()),
        "Ignoring command from server\nCommand too old or skew between system clocks is too large.\n  \
         Command timestamp:  1713545606 (Fri Apr 19 11:53:26 2024)\n  \
         Endpoint timestamp: 1713545787 (Fri Apr 19 11:56:27 2024)"
    );
    assert!(notice(&at(Some(u64::MAX)).unwrap_err()).contains("18446744073709551615 (no date)"));
    assert!(
        notice(&at(None).unwrap_err()).starts_with("Ignoring command from server\nCommand has no timestamp.")
    );
    for accepted in [SENT - 180, SENT, SENT + 180] {
        at(Some(accepted)).unwrap();
    }
}

#[test]
fn what_names_no_submitter_is_refused() {
    for (name, problem) in [
        ("globus_effective_identity", "(KeyError) 'globus_effective_identity'"),
        ("globus_identity_set", "(KeyError) 'globus_identity_set'"),
        ("globus_username", "(KeyError) 'globus_username'"),
    ] {
        let refused = read(&with(&format!("/{name}"), None)).unwrap_err();
        assert_eq!(notice(&refused), format!("Invalid server command.  {problem}"));
    }
    let many = vec![json!({"sub": "00000000-0000-4000-8000-00000000000a"}); 257];
    let refused = read(&with("/globus_identity_set", Some(many.into()))).unwrap_err();
    assert!(notice(&refused).ends_with("globus_identity_set: more than 256 identities"));
}

#[test]
fn what_is_no_start_of_a_user_endpoint_is_refused_and_only_the_log_says_why() {
    let long = "x".repeat(5000);
    for (pointer, value, why) in [
        ("/command", None, "Unknown or invalid command: \"\""),
        ("/command", Some(json!("cmd_stop")), "Unknown or invalid command: \"cmd_stop\""),
        ("/command", Some(json!(5)), "command: "),
        ("/kwargs/name", None, "Missing endpoint name"),
        ("/kwargs/name", Some(json!("")), "Missing endpoint name"),
        ("/kwargs/name", Some(json!("default")), "Invalid endpoint name: \"default\""),
        ("/kwargs/name", Some(json!("uep.")), "Invalid endpoint name"),
        ("/kwargs/name", Some(json!("uep./../../etc")), "Invalid endpoint name"),
        ("/kwargs/name", Some(json!("uep..")), "Invalid endpoint name"),
        ("/kwargs/name", Some(json!("uep.a b")), "Invalid endpoint name"),
        ("/kwargs/name", Some(json!("uep.ä")), "Invalid endpoint name"),
        ("/kwargs/name", Some(json!("uep.a\u{0}")), "Invalid endpoint name"),
        ("/kwargs/name", Some(json!(format!("uep.{}", "a".repeat(125)))), "Invalid endpoint name"),
        ("/kwargs/user_opts", Some(json!([])), "user_opts: "),
        ("/kwargs/user_runtime", Some(json!("3.11")), "user_runtime: "),
        ("/args", Some(json!("-x")), "args: "),
        ("/args", Some(json!(["\u{0}"])), "args: \"\\0\" is too long or has a NUL"),
        ("/args", Some(json!([long])), "args: "),
        ("/args", Some(json!(vec!["x"; 65])), "args: more than 64 arguments"),
    ] {
        let refused = read(&with(pointer, value)).unwrap_err();
        assert!(
            notice(&refused).starts_with("(InvalidCommandError) unexpected error; this is due to either an")
        );
        let expected = format!("(InvalidCommandError) {why}");
        assert!(refused.log.starts_with(&expected) && refused.log.ends_with(SUBMITTER), "{}", refused.log);
    }
}

#[test]
fn without_credentials_only_the_log_hears_of_it() {
    for command in [
        with("/kwargs/amqp_creds", None),
        with("/kwargs/amqp_creds", Some(json!({}))),
        with("/kwargs", None),
        with("/kwargs", Some(json!("x"))),
        json!([]),
    ] {
        assert_eq!(read(&command).unwrap_err().notice, None);
    }
    let body = command().to_string();
    for content_type in [None, Some("text/plain")] {
        let message = Message { content_type, timestamp: Some(SENT), body: body.as_bytes() };
        assert_eq!(StartCommand::read(message, &now()).unwrap_err().notice, None);
    }
}

#[test]
fn a_name_in_the_log_is_one_line() {
    let forged = "alice\n2026-01-01 INFO all is well";
    let command = read(&with("/globus_username", Some(json!(forged)))).unwrap();
    assert!(!command.submitter.username.contains('\n'));
}

proptest! {
    /// Whatever comes: no panic, and a name that is accepted is one directory.
    #[test]
    fn any_name(name in "(uep)?\\.?\\PC{0,12}") {
        if let Ok(command) = read(&with("/kwargs/name", Some(name.clone().into()))) {
            prop_assert_eq!(&command.name, &name);
            let path = std::path::Path::new(&name);
            prop_assert_eq!(path.components().count(), 1);
            prop_assert_eq!(path.file_name().unwrap().to_str().unwrap(), &name);
        }
    }

    #[test]
    fn any_bytes(body in prop::collection::vec(any::<u8>(), 0..200), timestamp: Option<u64>) {
        let message = Message { content_type: Some("application/json"), timestamp, body: &body };
        prop_assert!(StartCommand::read(message, &now()).is_err());
    }

    /// Any member may be anything.
    #[test]
    fn any_member(pointer in prop::sample::select(vec!["/command", "/args", "/globus_username", "/globus_identity_set",
        "/globus_effective_identity", "/kwargs", "/kwargs/name", "/kwargs/user_opts", "/kwargs/amqp_creds"]),
        value in prop::sample::select(vec![json!(null), json!(true), json!(-1e300), json!("\u{0}"), json!([[[]]]), json!({"a": {}})])) {
        let _ = read(&with(pointer, Some(value)));
    }
}

#[test]
fn messages_show_the_beginning_of_what_is_wrong_and_no_password() {
    for (text, shown) in [
        ("plain", "plain"),
        ("field `amqp://user:secret@host:5671/` is missing", "field `amqp://…` is missing"),
        ("\"amqps://a:b@c/\", \"http://d\" and amqp://e:f", "\"amqps://…\", \"http://…\" and amqp://…"),
        ("://", "://…"),
    ] {
        assert_eq!(shortened(text), shown);
    }
    assert_eq!(shortened(&"ü".repeat(10_000)).chars().count(), MAX_SHOWN_LENGTH);
}
