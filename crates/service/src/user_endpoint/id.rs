//! Computes the id of a user endpoint from manager, identity, configuration and interpreter, so that submits with the same
//! ones use the same endpoint. Host and platform of the submitter do not count, unless the manager's template reads them
//! ([`template_reads`](super::template_reads)): a person who moves from a laptop to a notebook server keeps the endpoint.

use serde_json::{Map, Value};
use uuid::Uuid;
use wire::json::FreeForm;
use wire::rest::submit::UserRuntime;
use wire::{EndpointId, IdentityId};

use super::template_reads::TemplateReads;

/// The id of the user endpoint that `manager`, with this template, runs for `identity` with this configuration and runtime.
pub fn of(
    manager: EndpointId,
    identity: IdentityId,
    config: &Map<String, Value>,
    runtime: Option<&UserRuntime>,
    template: &str,
) -> EndpointId {
    let python = runtime.and_then(python).unwrap_or_default();
    let sdk = runtime.and_then(|it| it.globus_compute_sdk_version.as_deref()).unwrap_or_default();
    let mut name = String::new();
    // Each part begins with its length, so that different parts never give the same name.
    let mut add = |part: &str| name.push_str(&format!("{}:{part};", part.len()));
    for part in [&identity.to_string(), &canonical(config), &python, sdk] {
        add(part);
    }
    let read = TemplateReads::of(template);
    if read != TemplateReads::default() {
        let runtime = runtime.and_then(|it| serde_json::to_value(it).ok()).unwrap_or_default();
        for (path, value) in read.values(&runtime) {
            let mut text = String::new();
            write(value, &mut text);
            add(&path);
            add(&text);
        }
    }
    EndpointId::from_uuid(Uuid::new_v5(manager.as_uuid(), name.as_bytes()))
}

/// Whether `id` can be a user endpoint's: only theirs are version 5 UUIDs.
pub fn is_one(id: EndpointId) -> bool {
    id.as_uuid().get_version() == Some(uuid::Version::Sha1)
}

/// `3.11.7`: newer clients name it, older ones send all of `sys.version`.
fn python(runtime: &UserRuntime) -> Option<String> {
    let named = runtime.python.as_ref().map(FreeForm::to_object);
    if let Some(Value::String(version)) = named.as_ref().and_then(|it| it.get("version")) {
        return Some(version.clone());
    }
    runtime.python_version.as_deref()?.split_whitespace().next().map(str::to_owned)
}

/// JSON with sorted object keys and without blanks.
fn canonical(object: &Map<String, Value>) -> String {
    let mut text = String::new();
    write_object(object, &mut text);
    text
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Object(object) => write_object(object, text),
        Value::Array(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                write(item, text);
            }
            text.push(']');
        }
        other => text.push_str(&other.to_string()),
    }
}

fn write_object(object: &Map<String, Value>, text: &mut String) {
    let mut members: Vec<_> = object.iter().collect();
    members.sort_unstable_by_key(|&(name, _)| name);
    text.push('{');
    for (at, (name, value)) in members.into_iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        text.push_str(&Value::from(name.as_str()).to_string());
        text.push(':');
        write(value, text);
    }
    text.push('}');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MANAGER: EndpointId = EndpointId::from_uuid(Uuid::from_u128(1));
    const ALICE: IdentityId = IdentityId::from_uuid(Uuid::from_u128(2));
    const BOB: IdentityId = IdentityId::from_uuid(Uuid::from_u128(3));

    fn runtime(value: Value) -> UserRuntime {
        serde_json::from_value(value).unwrap()
    }

    fn id(config: &str, runtime: Option<&UserRuntime>) -> EndpointId {
        let config: Value = serde_json::from_str(config).unwrap();
        of(MANAGER, ALICE, config.as_object().unwrap(), runtime, "")
    }

    #[test]
    fn the_same_choices_are_the_same_endpoint() {
        let same =
            [r#"{"a":1,"b":{"x":[1,"é"],"y":null}}"#, r#"{ "b": {"y":null,"x":[1,"\u00e9"]}, "a": 1 }"#];
        assert_eq!(id(same[0], None), id(same[1], None));
        let object = json!({"a": 1});
        let object = object.as_object().unwrap();
        assert_eq!(of(MANAGER, ALICE, object, None, ""), of(MANAGER, ALICE, object, None, ""));
    }

    #[test]
    fn every_choice_counts() {
        let base = id(r#"{"a":1}"#, None);
        for other in [r#"{}"#, r#"{"a":"1"}"#, r#"{"a":2}"#, r#"{"a":1,"b":2}"#, r#"{"a":[1]}"#] {
            assert_ne!(id(other, None), base, "{other}");
        }
        let object = json!({"a": 1});
        let object = object.as_object().unwrap();
        assert_ne!(of(MANAGER, BOB, object, None, ""), base);
        assert_ne!(of(EndpointId::from_uuid(Uuid::from_u128(9)), ALICE, object, None, ""), base);
    }

    #[test]
    fn of_the_runtime_only_versions_of_python_and_sdk_count() {
        let here = runtime(json!({"globus_compute_sdk_version": "4.19.0", "globus_sdk_version": "4.9.1",
            "python_version": "3.11.7 (main, Jan 1 2024) [GCC 12]",
            "python": {"version": "3.11.7", "compiler": "GCC 12"}, "platform": {"node": "laptop"}}));
        let there = runtime(json!({"globus_compute_sdk_version": "4.19.0", "globus_sdk_version": "4.0.0",
            "python_version": "3.11.7 (conda, May 5 2025) [Clang 17]",
            "python": {"version": "3.11.7", "compiler": "Clang 17"}, "platform": {"node": "cluster"}}));
        let older_client = runtime(json!({"globus_compute_sdk_version": "4.19.0",
            "python_version": "3.11.7 (main, Jan 1 2024) [GCC 12]"}));
        let base = id("{}", Some(&here));
        assert_eq!(id("{}", Some(&there)), base);
        assert_eq!(id("{}", Some(&older_client)), base);
        let other_python =
            runtime(json!({"globus_compute_sdk_version": "4.19.0", "python": {"version": "3.12.1"}}));
        let other_sdk =
            runtime(json!({"globus_compute_sdk_version": "3.8.0", "python": {"version": "3.11.7"}}));
        assert_ne!(id("{}", Some(&other_python)), base);
        assert_ne!(id("{}", Some(&other_sdk)), base);
        assert_ne!(id("{}", None), base);
    }

    #[test]
    fn a_template_that_reads_the_platform_has_an_endpoint_for_each() {
        let on = |machine: &str, node: &str| {
            runtime(json!({"python": {"version": "3.11.7"}, "platform": {"machine": machine, "node": node}}))
        };
        let (laptop, notebook, arm) =
            (on("x86_64", "laptop"), on("x86_64", "notebook"), on("aarch64", "laptop"));
        let with = |template: &str, it| of(MANAGER, ALICE, &Map::new(), Some(it), template);
        let plain = "engine: {{ engine }}  # for any platform";
        assert_eq!(with(plain, &laptop), with(plain, &arm));
        assert_eq!(with(plain, &laptop), with("", &laptop), "ids of before stay");
        let by_machine = "queue: {{ user_runtime.platform.machine }}";
        assert_eq!(with(by_machine, &laptop), with(by_machine, &notebook));
        assert_ne!(with(by_machine, &laptop), with(by_machine, &arm));
        let by_any = "{% set here = user_runtime.platform %}queue: {{ here[of] }}";
        assert_ne!(with(by_any, &laptop), with(by_any, &notebook));
        let older_client = UserRuntime::default();
        assert_ne!(with(by_machine, &older_client), with(by_machine, &laptop));
    }
}
