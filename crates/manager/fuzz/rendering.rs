//! What must hold of templates, schemas and environments for any bytes. The fuzzer looks for bytes for which it does not
//! hold; the tests replay its seeds. Nothing here starts a process.

use std::collections::BTreeMap;
use std::path::Path;

use manager::environment::{self, Origin};
use manager::schema;
use manager::template::{self, Account, Inputs, RenderError, mapped_identity};
use serde_json::{Value, json};
use wire::json::Object;

fn account() -> Account {
    Account {
        name: "alicia".into(),
        uid: 4711,
        gid: 4712,
        groups: vec![4712, 100],
        gecos: "Alicia,,,".into(),
        shell: "/bin/bash".into(),
        home: "/home/alicia".into(),
    }
}

/// The text before the first NUL, and the JSON object after it.
fn parts(bytes: &[u8]) -> Option<(&str, Object)> {
    let (first, second) = match bytes.iter().position(|&byte| byte == 0) {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &b"{}"[..]),
    };
    let Ok(Value::Object(object)) = serde_json::from_slice(second) else { return None };
    Some((std::str::from_utf8(first).ok()?, object))
}

/// A template, and after a NUL the options. Whatever both are, rendering ends with a text of bounded size or an error of
/// bounded size; and in a template of ours, an option is one value and nothing else.
pub(crate) fn template(bytes: &[u8]) {
    let Some((text, options)) = parts(bytes) else { return };
    // A process of its own bounds the memory of large formats; here there is none.
    let long_number = text.as_bytes().windows(4).any(|it| it.iter().all(u8::is_ascii_digit));
    // The engine panics at these, which is caught and told; but the fuzzer ends at each panic.
    let told = text.contains("import")
        && text.split(" as").skip(1).any(|it| {
            !it.trim_start().starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_')
        });
    if !long_number && !told && !text.contains('*') {
        let rendered = render(text, &options);
        match &rendered {
            Ok(text) => assert!(text.len() <= 1 << 20),
            Err(error) => readable(error),
        }
        if !text.contains("random") && !text.contains("now") {
            assert!(rendered == render(text, &options), "it renders otherwise the second time");
        }
    }
    one_value(&options);
}

fn render(text: &str, options: &Object) -> Result<String, RenderError> {
    let account = account();
    template::render_unconfined(&Inputs {
        // No such directory: a template takes in no file.
        template_path: Path::new("/nonexistent/farcall/user_config_template.yaml.j2"),
        template_text: text,
        schema: None,
        user_options: options,
        user_runtime: Some(
            &json!({"python_version": "3.11.7 (main)", "globus_compute_sdk_version": "3.8.0"}),
        ),
        parent_config: &json!({"display_name": "The site's", "heartbeat_period": 30}),
        mapped_identity: &mapped_identity(&account, Some("11111111-2222-4333-8444-555555555555")),
        environment: &BTreeMap::from([("SITE".to_owned(), "here".to_owned())]),
    })
}

/// Each option stays where the administrator's template puts it.
fn one_value(options: &Object) {
    let value = options.values().next().cloned().unwrap_or(Value::Null);
    let name = options.keys().next().cloned().unwrap_or_default();
    let options = Object::from_iter([("v".to_owned(), value), ("name".to_owned(), name.into())]);
    let text = "before: 1\noption: {{ v }}\nnested:\n  list: [{{ v }}, {{ name }}]\nafter: end\n";
    let Ok(text) = render(text, &options) else { return };
    let parsed: Value = match serde_saphyr::from_str(&text) {
        Ok(parsed) => parsed,
        // Some values, such as an object with two keys that YAML takes for one, are an error for their user alone.
        Err(_) => return,
    };
    let keys: Vec<&String> = parsed.as_object().map(|it| it.keys().collect()).unwrap_or_default();
    assert_eq!(keys, ["after", "before", "nested", "option"], "{text}");
    assert_eq!((&parsed["before"], &parsed["after"]), (&json!(1), &json!("end")), "{text}");
    assert_eq!(parsed["nested"]["list"].as_array().map(Vec::len), Some(2), "{text}");
    assert_eq!(parsed["nested"].as_object().map(|it| it.len()), Some(1), "{text}");
}

/// A schema, and after a NUL the options. Checking ends, decides the same each time, and says what is wrong briefly.
pub(crate) fn schema(bytes: &[u8]) {
    let Some((text, options)) = parts(bytes) else { return };
    let Ok(schema) = serde_json::from_str::<Value>(text) else { return };
    // Expressions are bounded in a process of their own; here only short ones are tried.
    if text.contains("attern") && options.values().any(|it| it.to_string().len() > 64) {
        return;
    }
    let outcome = schema::check(&schema, &options);
    if let Err(error) = &outcome {
        readable(error);
    }
    assert!(outcome == schema::check(&schema, &options), "it decides otherwise the second time");
}

/// The administrator's file of variables: names and values that a process can be started with.
pub(crate) fn environment(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok((variables, warnings)) = environment::parse(text) else { return };
    assert!(warnings.len() <= text.len());
    let account = account();
    let origin = Origin {
        inherited: &[("OLDPWD".to_owned(), "/root".to_owned()), ("LANG".to_owned(), "C".to_owned())],
        account: &account,
        has_home: true,
        program_directory: Path::new("/opt/farcall/bin"),
        endpoint_name: "uep.a.b",
        tells_versions_of: Some(&json!({"python": {"version": "3.11"}})),
    };
    let whole = environment::compose(variables, &origin);
    for (name, value) in &whole {
        assert!(!name.is_empty() && !name.contains(['=', '\0']), "{name:?}");
        assert!(!value.contains('\0'), "{name:?}: {value:?}");
    }
    assert_eq!((whole["HOME"].as_str(), whole["USER"].as_str()), ("/home/alicia", "alicia"));
    assert!(
        whole.contains_key("PATH") && whole["PWD"] == whole["CWD"] && !whole["PATH"].is_empty()
            || text.contains("PATH")
    );
}

fn readable(error: &RenderError) {
    assert!(!error.exception.is_empty() && error.exception.len() < 100);
    assert!(error.text.chars().count() <= 4_001, "{} characters", error.text.chars().count());
}
