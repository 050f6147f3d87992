//! Texts of upstream's tool (globus-identity-mapping 0.4.0), and ours beside them.

use serde_json::json;

use super::*;

const ALICIA: &str = "00000000-0000-4444-8888-111111111111";

fn file(mappings: Value) -> String {
    json!([
        {"DATA_TYPE": "external_identity_mapping#1.0.0", "command": ["/bin/false"]},
        {"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": mappings},
    ])
    .to_string()
}

fn example() -> String {
    file(json!([
        {"source": "{username}", "match": "(.*)@example.com", "output": "{0}"},
        {"source": "{username}", "match": "zzz", "output": "{0}"},
    ]))
}

fn people(status: &str) -> String {
    json!([{"id": ALICIA, "username": "mickéy97@example.com", "status": status}]).to_string()
}

fn run(mapping: &str, identities: &str, first: bool) -> Report {
    validate(mapping.as_bytes(), || Ok(identities.into()), "stdin", Options { first, verbose: false })
}

#[test]
fn all_identities_are_printed_as_upstream_prints_them() {
    let report = run(&example(), &people("used"), false);
    let output = format!(
        "\nAll mapped identities: \n[\n  {{\n    \"{ALICIA}\": [\n      \"mick\\u00e9y97\"\n    ]\n  }},\n  {{}}\n]"
    );
    assert_eq!((report.output, report.status), (output, 0));
    assert_eq!(
        report.messages,
        [
            "  Failed to map identities -- (IdentityMappingError) /bin/false: exit status: 1",
            "Note: a manager refuses this person: the local user would be 'mickéy97', and 'é' is not allowed in the name of \
             a local user."
        ]
    );
    let object = format!(r#"{{"identities": {}}}"#, people("used"));
    assert!(run(&example(), &object, false).output.contains("mick"));
    assert_eq!(run("[]", &people("used"), false).output, "\nNo identity mapped.");
    assert_eq!(run(&file(json!([])), "[]", false).output, "\nNo identity mapped.");
    assert_eq!(run(&example(), "[]", false).output, "\nAll mapped identities: \n[\n  {},\n  {}\n]");
}

#[test]
fn the_first_name_is_printed_as_upstream_prints_it() {
    let alicia =
        |status| json!([{"id": ALICIA, "username": "alicia@example.com", "status": status}]).to_string();
    let report = run(&example(), &alicia("used"), true);
    assert_eq!((report.output.as_str(), report.status), ("\nFirst found mapped identity: alicia", 0));
    assert_eq!(report.messages.len(), 1, "{:?}", report.messages);
    let nobody = run(&example(), "[]", true);
    assert_eq!((nobody.output.as_str(), nobody.status), ("\nFirst found mapped identity: None", 0));
    // Upstream's tool ignores the status here; a manager does not.
    let unused = run(&example(), &alicia("unused"), true);
    assert_eq!(unused.output, "\nFirst found mapped identity: alicia");
    assert!(
        unused.messages[1].starts_with("Note: a manager maps this person to nobody."),
        "{:?}",
        unused.messages
    );
}

#[test]
fn each_step_is_told_on_request() {
    let options = Options { first: true, verbose: true };
    let report = validate(example().as_bytes(), || Ok(people("used").into()), "stdin", options);
    assert_eq!(report.messages[..2], ["Using 1st mapper [of 2]", "  Mapping 1st identity [of 1]"]);
    assert!(report.messages[2].starts_with("   Failed to map identity (IdentityMappingError) "));
    assert_eq!(report.messages[3], "Using 2nd mapper [of 2]");
    let spoken = [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (12, "12th"), (21, "21st")];
    assert!(spoken.iter().all(|&(number, text)| ordinal(number) == text));
}

#[test]
fn what_can_not_be_used_exits_with_1() {
    let unknown_version = r#"[{"DATA_TYPE": "expression_identity_mapping#2.0.0"}]"#;
    let bad_pattern = file(json!([{"source": "{username}", "match": "a\\q", "output": "{0}"}]));
    let (example, people) = (example(), people("used"));
    let cases = [
        ("{", people.as_str(), "Failed to read config: (JSONDecodeError) "),
        (&example, "{", "Failed to parse identities: (JSONDecodeError) "),
        (
            &example,
            "\"x\"",
            "Failed to read identities from (stdin): (SyntaxError) Expected list of identities, not str",
        ),
        (&example, "{}", "Failed to read identities from (stdin): (KeyError) 'identities'"),
        (&example, "[5]", "Failed to read identities from (stdin): (TypeError) "),
        (unknown_version, &people, "Unexpected mapping error: (ValueError) Unsupported DATA_TYPE"),
        (
            "[{}]",
            &people,
            "Failed to load mapping from config -- (InvalidMappingError) Invalid map config (index: 0)",
        ),
        (
            &bad_pattern,
            &people,
            "Failed to load mapping from config -- (InvalidMappingError) a\\q - Invalid \\ expression: \\q",
        ),
        ("\"x\"", &people, "Failed to load mapping from config -- (InvalidMappingError) "),
    ];
    for (mapping, identities, text) in cases {
        let report = run(mapping, identities, false);
        assert_eq!((report.status, report.output.as_str()), (1, ""), "{text}");
        assert!(report.messages[0].starts_with(text), "{:?}", report.messages);
    }
    let unknown = run(r#"[{"DATA_TYPE": "nix#1"}]"#, &people, false);
    assert_eq!(
        (unknown.status, unknown.messages[0].as_str()),
        (0, "No identity mapper found for: nix#1 (index: 0)")
    );
}
