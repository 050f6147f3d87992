//! What the user endpoint reads from its standard input: the rendered configuration and its credentials.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use wire::json;
use wire::start_document::{LIMIT, StartDocument};

use super::request::LaunchRequest;
use super::stage::{Failure, Problem, Stage};

/// The numbers of the descriptors that a user endpoint inherits, as upstream's managers of 4.x have them.
pub(super) const CREDENTIALS_DESCRIPTOR: i32 = 3;
pub(super) const AUDIT_DESCRIPTOR: i32 = 4;

/// Upstream's words to the submitter about a template that is at fault.
const TEMPLATE_AT_FAULT: &str = "Error generating template; contact MEP administrator";

/// The rendered configuration, after it was found sound.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Configuration {
    pub(super) text: String,
    /// The template asks for debug messages.
    pub(super) debug: bool,
}

/// What the launcher reads of a rendered configuration. The rest is the user endpoint's affair.
#[derive(Deserialize)]
struct Keys {
    #[serde(default, deserialize_with = "present")]
    high_assurance: bool,
    #[serde(default)]
    debug: Value,
}

/// Any value, also null, makes the key present.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// Reads the rendered YAML, and adds the manager's high assurance, which a template may not set.
pub(super) fn configuration(rendered: String, request: &LaunchRequest) -> Result<Configuration, Failure> {
    let template = request.files.template.display();
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let keys: Option<Keys> = serde_saphyr::from_str_with_options(&rendered, options).map_err(|error| {
        let text = format!("the rendered template {template} is not a YAML mapping: {error}");
        Problem::new("ParserError", text).at(Stage::Document)
    })?;
    let Some(keys) = keys else {
        let text = format!(
            "the template {template} rendered to nothing; the administrator must give it an `engine`"
        );
        return Err(Problem::new("TypeError", text).at(Stage::Document));
    };
    if keys.high_assurance {
        let private = format!("`high_assurance` may not be specified in the template {template}");
        return Err(Problem::new("ValueError", TEMPLATE_AT_FAULT).privately(private).at(Stage::Document));
    }
    let text = if request.high_assurance { format!("high_assurance: true\n{rendered}") } else { rendered };
    Ok(Configuration { text, debug: keys.debug == Value::Bool(true) })
}

/// Which of the passed descriptors the user endpoint gets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passed {
    pub(super) audit: bool,
    pub(super) credentials: bool,
}

/// The document as bytes.
///
/// `parent`: the process that the user endpoint will have as its parent. It refuses to run below another.
pub(super) fn encode(
    request: &LaunchRequest,
    configuration: &str,
    parent: i32,
    passed: Passed,
) -> Result<Vec<u8>, Failure> {
    let mut info = json::Object::new();
    info.insert("posix_ppid".to_owned(), parent.into());
    if let Some(identity) = &request.identity {
        let candidates = serde_json::to_value(&identity.candidates).unwrap_or_default();
        info.insert("globus_candidate_identities".to_owned(), candidates);
        info.insert("globus_matched_identity".to_owned(), identity.id.to_string().into());
    }
    let document = StartDocument {
        amqp_creds: None,
        config: Some(configuration.to_owned()),
        ep_info: None,
        allowed_functions: request.allowed_functions.clone(),
        audit_fd: passed.audit.then_some(AUDIT_DESCRIPTOR),
        mem_fd: passed.credentials.then_some(CREDENTIALS_DESCRIPTOR),
        enckey: request
            .renewed_credentials
            .as_ref()
            .filter(|_| passed.credentials)
            .map(|(_, key)| key.clone()),
    };
    let mut document = serde_json::to_value(&document)
        .map_err(|error| Problem::new("ValueError", error.to_string()).at(Stage::Document))?;
    // The service's answer goes on unchanged, with what this release doesn't know of it.
    document["amqp_creds"] = request.credentials.clone();
    document["ep_info"] = Value::Object(info);
    let bytes = json::encode(&document);
    if bytes.len() > LIMIT {
        let text = format!(
            "Unable to write {} bytes of data to stdin; the maximum allowed is {LIMIT} bytes",
            bytes.len()
        );
        return Err(Problem::new("ValueError", text).at(Stage::StandardInput));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn request() -> LaunchRequest {
        serde_json::from_value(json!({
            "local_user": "alicia", "name": "x",
            "files": {"template": "/t", "schema": "/s", "environment": "/e", "program_directory": "/p"},
            "user_options": {}, "user_runtime": null, "parent_config": {}, "identity": null,
            "credentials": {"endpoint_id": "0f0f0f0f-0000-4000-8000-000000000003", "unknown": [1]},
            "allowed_functions": null, "high_assurance": false, "pam_service": null, "arguments": [],
            "inherited_environment": [], "audit_descriptor": null, "renewed_credentials": null,
        }))
        .unwrap()
    }

    #[test]
    fn configurations() {
        let mut request = request();
        let sound = |text: &str, request: &LaunchRequest| configuration(text.to_owned(), request);
        assert_eq!(
            sound("engine: {}\ndebug: true\n", &request),
            Ok(Configuration { text: "engine: {}\ndebug: true\n".to_owned(), debug: true })
        );
        assert!(!sound("debug: \"true\"", &request).unwrap().debug);
        for (text, exception) in [
            ("", "TypeError"),
            ("# a comment\n", "TypeError"),
            ("high_assurance: false", "ValueError"),
            ("high_assurance:", "ValueError"),
            ("- 1", "ParserError"),
            ("text", "ParserError"),
            ("a: b: c", "ParserError"),
        ] {
            let failure = sound(text, &request).unwrap_err();
            assert_eq!(
                (failure.stage, failure.problem.exception.as_str()),
                (Stage::Document, exception),
                "{text}"
            );
        }
        request.high_assurance = true;
        assert_eq!(sound("engine: {}", &request).unwrap().text, "high_assurance: true\nengine: {}");
        assert!(sound("high_assurance: true", &request).is_err());
    }

    #[test]
    fn documents() {
        let mut request = request();
        let nothing = Passed { audit: false, credentials: false };
        let read = |request: &LaunchRequest, passed| -> Value {
            serde_json::from_slice(&encode(request, "engine: {}", 7, passed).unwrap()).unwrap()
        };
        assert_eq!(
            read(&request, nothing),
            json!({"amqp_creds": request.credentials, "config": "engine: {}", "ep_info": {"posix_ppid": 7}})
        );
        request.renewed_credentials = Some((5, "key".to_owned()));
        assert_eq!(read(&request, nothing).get("enckey"), None);
        let all = read(&request, Passed { audit: true, credentials: true });
        assert_eq!((&all["mem_fd"], &all["enckey"], &all["audit_fd"]), (&json!(3), &json!("key"), &json!(4)));
        let failure = encode(&request, &"x".repeat(LIMIT), 7, nothing).unwrap_err();
        assert_eq!(failure.stage, Stage::StandardInput);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-z:{}&*!| \\n\"'-]{0,80}") {
            let _ = configuration(text, &request());
        }
    }
}
