//! Replays what upstream's 3.8.0 and 4.19.0 made of templates, options and schemas (`golden/templates`, recorded with
//! `record.py`), and lists every deliberate difference.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::path::Path;

use manager::template::{Account, Inputs, RenderError, mapped_identity, render};
use serde::Deserialize;
use serde_json::{Value, json};
use wire::json::Object;

#[derive(Deserialize)]
struct Record {
    files: BTreeMap<String, String>,
    user_runtime: Value,
    account: RecordedAccount,
    identity: String,
    parent_config: Value,
    environment: BTreeMap<String, String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct RecordedAccount {
    uname: String,
    uid: u32,
    gid: u32,
    gecos: String,
    shell: String,
    dir: String,
}

#[derive(Debug, Deserialize)]
struct Case {
    template: String,
    options: Object,
    schema: Option<Value>,
    outcome: Outcome,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Outcome {
    Text { text: String, yaml: Option<Value> },
    Error { exception: String, message: String },
}

fn yaml(text: &str) -> Option<Value> {
    let options = serde_saphyr::options! { strict_booleans: true, legacy_octal_numbers: true };
    serde_saphyr::from_str_with_options(text, options).ok()
}

/// Why ours differs from upstream's on purpose; `None`: it must not.
fn reason(version: &str, case: &Case, ours: &Result<String, RenderError>) -> Option<&'static str> {
    if let (Some(option), Ok(text)) = (case.options.get("v"), ours) {
        let value = yaml(text);
        let keys = option.as_object().map(|members| Value::from_iter(members.keys().cloned()));
        let twice = json!([option, option]);
        let x = value.as_ref().and_then(|value| value.get("x"));
        if x == Some(option)
            || x == Some(&twice)
            || value.as_ref() == Some(option)
            || (value.is_some() && value == keys)
        {
            return Some(
                "the option arrives as the value that was sent: upstream's text is another value of YAML, or none",
            );
        }
    }
    let template = case.template.as_str();
    if case.options.get("v").and_then(Value::as_str) == Some("\u{1f600}") {
        return Some("a character outside of the basic plane is one character, not two surrogates");
    }
    if version == "3.8.0" && case.options.get("v").is_some_and(has_null) {
        return Some("null is accepted, as 3.14 and later accept it");
    }
    if version == "3.8.0" && (template.contains("mapped_identity") || template.contains("_GC")) {
        return Some("mapped_identity and _GC are those of later releases");
    }
    if case.options.contains_key("self") && ours.is_ok() {
        return Some("an option named self does no harm");
    }
    if version == "3.8.0"
        && (case.options.contains_key("mapped_identity") || case.options.contains_key("_GC"))
    {
        return Some("the reserved words of later releases are refused");
    }
    if case.schema.as_ref().is_some_and(|schema| {
        schema["properties"]["a"]["type"] == json!(5) || schema["properties"]["a"]["type"] == json!("strin")
    }) {
        return Some("an invalid schema is named with the place in it");
    }
    if let (Outcome::Error { message, .. }, Err(ours), Some(_)) = (&case.outcome, ours, &case.schema)
        && message.lines().next() == ours.text.lines().next()
    {
        return Some("the place is named from the top of schema and options");
    }
    DIFFERENCES.iter().find(|(differs, _)| *differs == template).map(|(_, reason)| *reason)
}

/// Templates that render differently on purpose.
const DIFFERENCES: [(&str, &str); 14] = [
    ("{% for k, v in table.items() %}{{ k }}={{ v }} {% endfor %}", SORTED),
    ("{% for k in table %}{{ k }} {% endfor %}", SORTED),
    ("{{ 7|round(0, 'ceil') }}", "a rounded whole number stays one"),
    ("{{ 'abc'|truncate(2) }}", "truncate takes its arguments by name"),
    ("{{ words|shell_escape }}", "a list prints as JSON, its strings without a second pair of quotes"),
    ("{{ words }}", "a list prints as JSON, its strings without a second pair of quotes"),
    ("{{ ('a',) }}", "a tuple prints as a list, which YAML reads"),
    ("{{ cycler }}", "cycler does not exist"),
    ("{% include 'part.j2' without context %}", "an included file always sees the variables"),
    ("{{ user_runtime.nothing|default('x') }}", LENIENT),
    ("{{ user_runtime.nothing }}", LENIENT),
    ("{{ user_runtime.nothing.more|default('x') }}", LENIENT),
    ("{% if user_runtime.nothing is defined %}a{% endif %}", LENIENT),
    ("{{ 'python' in user_runtime }}", LENIENT),
];

const SORTED: &str = "an option's members are in alphabetical order";
const LENIENT: &str = "what a submitter's SDK does not send is undefined at any depth, and no KeyError";

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().any(has_null),
        Value::Object(members) => members.values().any(has_null),
        _ => false,
    }
}

/// The lines of a schema's error that don't depend on the order of members: the message, the keyword, the place.
fn essence(message: &str) -> Vec<&str> {
    message
        .lines()
        .enumerate()
        .filter(|(at, line)| *at == 0 || !line.starts_with(' '))
        .map(|(_, line)| line)
        .collect()
}

fn replay(version: &str) -> Vec<String> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/templates");
    let record = std::fs::read_to_string(golden.join(format!("{version}.json"))).unwrap();
    let record: Record = serde_json::from_str(&record).unwrap();
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in &record.files {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let account = Account {
        name: record.account.uname,
        uid: record.account.uid,
        gid: record.account.gid,
        groups: vec![record.account.gid],
        gecos: record.account.gecos,
        shell: record.account.shell,
        home: record.account.dir,
    };
    let mapped_identity = mapped_identity(&account, Some(&record.identity));
    let mut differences = Vec::new();
    for case in &record.cases {
        let ours = render(&Inputs {
            template_path: &directory.path().join("user_config_template.yaml.j2"),
            template_text: &case.template,
            schema: case.schema.as_ref(),
            user_options: &case.options,
            user_runtime: Some(&record.user_runtime),
            parent_config: &record.parent_config,
            mapped_identity: &mapped_identity,
            environment: &record.environment,
        });
        let same = match (&case.outcome, &ours) {
            (Outcome::Text { text, yaml: value }, Ok(ours)) => {
                text == ours || value.as_ref().is_some_and(|value| yaml(ours).as_ref() == Some(value))
            }
            (Outcome::Error { exception, message }, Err(ours)) => {
                *exception == ours.exception
                    && (case.schema.is_none() || essence(&ours.text) == essence(message))
            }
            _ => false,
        };
        if !same && reason(version, case, &ours).is_none() {
            let theirs = match &case.outcome {
                Outcome::Text { text, .. } => text.clone(),
                Outcome::Error { exception, message } => format!("({exception}) {message}"),
            };
            let ours = ours.unwrap_or_else(|error| error.to_string());
            let options = case.options.get("v").map(Value::to_string).unwrap_or_default();
            differences.push(format!(
                "{:?} {options} {}\n  theirs {theirs:?}\n  ours   {ours:?}",
                case.template,
                case.schema.as_ref().map(Value::to_string).unwrap_or_default()
            ));
        }
    }
    differences
}

#[test]
fn templates_render_as_those_of_3_8_0() {
    let differences = replay("3.8.0");
    assert!(differences.is_empty(), "{}\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn templates_render_as_those_of_4_19_0() {
    let differences = replay("4.19.0");
    assert!(differences.is_empty(), "{}\n{}", differences.len(), differences.join("\n"));
}
