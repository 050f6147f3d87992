//! What must hold of identity mapping for any bytes. The fuzzer looks for bytes for which it does not hold; the tests
//! replay its seeds. Nothing here may run a program that the bytes name.

use manager::mapping::answer::Answer;
use manager::mapping::{Evaluation, Mapping, Settings, name};
use serde_json::{Value, json};
use wire::start_document::LinkedIdentity;

const ALICIA: &str = "00000000-0000-4444-8888-111111111111";
const ROBERTO: &str = "00000000-0000-4444-8888-222222222222";

fn settings() -> Settings {
    Settings { connector: "connector".to_owned(), gateway: "gateway".to_owned() }
}

/// A mapping file, and after a NUL the identities: a local user is an allowed name that a mapper offers for one of them.
pub(crate) fn mapping(bytes: &[u8]) {
    let (file, people) = match bytes.iter().position(|&byte| byte == 0) {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &b""[..]),
    };
    let accepted = Mapping::parse(file, &settings());
    if let Err(error) = &accepted {
        readable(&error.to_string());
    }
    let Ok(Value::Array(mut entries)) = serde_json::from_slice::<Value>(file) else { return };
    entries.retain(|entry| entry["DATA_TYPE"] != "external_identity_mapping#1.0.0");
    let file = Value::Array(entries).to_string();
    let Ok((mapping, warnings)) = Mapping::parse(file.as_bytes(), &settings()) else { return };
    for warning in warnings {
        readable(&warning.to_string());
    }
    let people: Vec<LinkedIdentity> =
        serde_json::from_slice(people).unwrap_or_else(|_| linked("alicia@example.com"));
    check(&mapping.evaluate(&people), &people);
    assert!(mapping.evaluate(&people) == mapping.evaluate(&people), "it decides otherwise the second time");
}

/// Flags, then a pattern, an output and a text, separated by NULs.
pub(crate) fn pattern(bytes: &[u8]) {
    let Some((flags, rest)) = bytes.split_first() else { return };
    let Ok(rest) = std::str::from_utf8(rest) else { return };
    let mut parts = rest.splitn(3, '\0');
    let (Some(pattern), Some(output), Some(text)) = (parts.next(), parts.next(), parts.next()) else {
        return;
    };
    let file = json!([{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": [{
        "source": "{username}", "match": pattern, "output": output,
        "literal": flags & 1 != 0, "ignore_case": flags & 2 != 0,
    }]}]);
    let Ok((mapping, _)) = Mapping::parse(file.to_string().as_bytes(), &settings()) else { return };
    let people = linked(text);
    let evaluation = mapping.evaluate(&people);
    check(&evaluation, &people);
    if flags & 3 == 1 && text.len() <= 4096 && evaluation.warnings.is_empty() {
        let offered = !evaluation.candidates[0].is_empty();
        assert!(offered == (pattern == text), "a literal pattern matches itself and nothing else");
    }
}

/// What an external program prints: an answer names only identities that it was asked about.
pub(crate) fn answer(bytes: &[u8]) {
    let asked = [ALICIA, ROBERTO].map(|id| (id.parse().expect("it is a UUID"), id));
    match Answer::decode(bytes) {
        Ok(None) => assert!(bytes.is_empty()),
        Ok(Some(answer)) => match answer.clone().hits(&asked) {
            Ok(hits) => {
                assert!(hits.0.len() <= 2 && hits.0.iter().all(|(id, _)| id == ALICIA || id == ROBERTO));
                let _ = answer.first(Some(asked[0].0));
            }
            Err(error) => readable(&error.to_string()),
        },
        Err(error) => readable(&error.to_string()),
    }
}

fn linked(username: &str) -> Vec<LinkedIdentity> {
    let person = |id: &str| {
        let person = json!({"sub": id, "id": id, "username": username, "name": "Alicia", "status": "used", "organization": null});
        serde_json::from_value(person).expect("it is an identity")
    };
    [ALICIA, ROBERTO].map(person).to_vec()
}

fn check(evaluation: &Evaluation, people: &[LinkedIdentity]) {
    let first = evaluation.candidates.iter().flatten().flat_map(|hits| &hits.0).next();
    if let Some(matched) = &evaluation.matched {
        assert!(name::check(&matched.local_user).is_ok() && matched.local_user != "root");
        assert!(evaluation.refused.is_none());
        let (_, names) = first.expect("a local user is the first candidate");
        assert!(names.first() == Some(&matched.local_user));
        let of_a_person = |it: &LinkedIdentity| {
            let id = it.rest.get("id").and_then(Value::as_str).and_then(|id| id.parse().ok());
            id.unwrap_or(it.sub) == matched.identity
        };
        assert!(people.iter().any(of_a_person), "the identity is one of the person's");
    }
    assert!(serde_json::to_vec(&evaluation.candidates).expect("they serialize").len() < 3 << 20);
    evaluation.warnings.iter().for_each(|warning| readable(warning));
}

/// A message fits on one line of a log.
fn readable(text: &str) {
    assert!(text.len() < 4000, "{} bytes", text.len());
    assert!(!text.contains(char::is_control), "{text:?}");
}
