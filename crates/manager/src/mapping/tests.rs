//! Whole mapping files.

use serde_json::json;

use super::*;

const ALICIA: &str = "00000000-0000-4444-8888-111111111111";
const ROBERTO: &str = "00000000-0000-4444-8888-222222222222";

fn settings() -> Settings {
    Settings::of_manager("33333333-3333-4333-8333-333333333333".parse().unwrap())
}

fn parse(document: &Value) -> Result<(Mapping, Vec<Warning>), MappingError> {
    Mapping::parse(document.to_string().as_bytes(), &settings())
}

fn mapping(document: &Value) -> Mapping {
    parse(document).unwrap().0
}

/// A linked set as our service sends it: the one of the guide.
fn linked() -> Vec<LinkedIdentity> {
    let set = json!([
        {"sub": ALICIA, "id": ALICIA, "email": "alicia@legal.your_institution.com", "name": "Alicia",
         "organization": null, "status": "used", "username": "alicia@legal.your_institution.com"},
        {"sub": ROBERTO, "id": ROBERTO, "email": "roberto@cs.your_institution.com", "name": "Roberto",
         "organization": "Your Institution, GmbH", "status": "used", "username": "roberto@your_institution.com"},
    ]);
    serde_json::from_value(set).unwrap()
}

fn expression(mappings: Value) -> Value {
    json!({"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": mappings})
}

fn script(script: &str) -> Value {
    json!({"DATA_TYPE": "external_identity_mapping#1.0.0", "command": ["/bin/sh", "-c", script]})
}

fn constant(name: &str) -> Value {
    expression(json!([{"source": "{id}", "match": ALICIA, "output": name}]))
}

fn local_user(document: &Value) -> Option<String> {
    mapping(document).evaluate(&linked()).matched.map(|it| it.local_user)
}

#[test]
fn the_institution_of_the_guide_maps_the_second_identity() {
    let document = json!([expression(json!([
        {"source": "{email}", "output": "{0}", "match": "(.*)@your_institution.com"},
        {"source": "{email}", "output": "{0}", "match": "(.*)@cs.your_institution.com"},
    ]))]);
    let evaluation = mapping(&document).evaluate(&linked());
    let matched = Matched { identity: ROBERTO.parse().unwrap(), local_user: "roberto".to_owned() };
    assert_eq!(evaluation.matched, Some(matched));
    assert_eq!(evaluation.candidates_json(), json!([[{ROBERTO: ["roberto"]}]]));
    assert_eq!((evaluation.warnings, evaluation.refused), (vec![], None));
}

#[test]
fn the_example_file_maps_people_of_example_com_only() {
    let document = json!([
        {"comment": "x", "DATA_TYPE": "external_identity_mapping#1.0.0",
         "command": ["/bin/false", "--some", "flag", "-a", "-b", "-c"]},
        {"comment": "x", "DATA_TYPE": "expression_identity_mapping#1.0.0",
         "mappings": [{"source": "{username}", "match": "(.*)@example.com", "output": "{0}"}]},
    ]);
    let (mapping, warnings) = parse(&document).unwrap();
    assert_eq!(warnings, []);
    let evaluation = mapping.evaluate(&linked());
    assert_eq!((evaluation.matched, evaluation.candidates), (None, vec![vec![], vec![]]));
    assert_eq!(
        evaluation.warnings,
        [
            "Identity mapper 1 [of 2] (ExternalIdentityMapping) failed -- (IdentityMappingError) /bin/false: exit status: 1"
        ]
    );
    let mut mickey = linked();
    mickey[1].rest.insert("username".to_owned(), "mickey97@example.com".into());
    assert_eq!(mapping.evaluate(&mickey).matched.unwrap().local_user, "mickey97");
}

#[test]
fn the_first_mapper_that_maps_wins() {
    let offers =
        |name: &str| script(&format!(r#"echo '{{"result": [{{"id": "{ROBERTO}", "output": "{name}"}}]}}'"#));
    let nobody = expression(json!([{"source": "{id}", "match": "x", "output": "x"}]));
    let fails = expression(json!([{"source": "{nickname}", "match": "x", "output": "x"}]));
    assert_eq!(local_user(&json!([nobody, fails, offers("b"), constant("c")])).as_deref(), Some("b"));
    assert_eq!(local_user(&json!([constant("c"), offers("b")])).as_deref(), Some("c"));
    assert_eq!(
        local_user(&json!([script("exit 1"), script("true"), script("echo x"), constant("c")])).as_deref(),
        Some("c")
    );
    assert_eq!(local_user(&json!([nobody, fails])), None);
    let all = mapping(&json!([nobody, constant("c"), offers("b")])).evaluate(&linked());
    assert_eq!(all.candidates_json(), json!([[], [{ALICIA: ["c"]}], [{ROBERTO: ["b"]}]]));
}

#[test]
fn properties_of_an_identity_can_be_sources() {
    for (source, pattern) in [("{username}", "roberto@.*"), ("{name}", "Roberto"), ("{id}", ROBERTO)] {
        let document = json!([expression(json!([{"source": source, "match": pattern, "output": "r"}]))]);
        assert_eq!(local_user(&document).as_deref(), Some("r"), "{source}");
    }
    // Alicia's organization is null: the mapper fails, and the next one is tried.
    let organization = expression(json!([{"source": "{organization}", "match": "Your.*", "output": "r"}]));
    let evaluation = mapping(&json!([organization, constant("next")])).evaluate(&linked());
    assert_eq!(evaluation.matched.unwrap().local_user, "next");
    assert!(
        evaluation.warnings[0].ends_with("(IdentityMappingError) Missing identity property organization")
    );
    let alone = mapping(&json!([organization])).evaluate(&linked()[1..]);
    assert_eq!(alone.matched.unwrap().local_user, "r");
}

#[test]
fn nobody_is_mapped_to_a_name_that_is_no_ordinary_users() {
    for name in ["root", "", "0", "1000", &"a".repeat(300), "alicé", "a\nb", "../x"] {
        let evaluation = mapping(&json!([constant(name), constant("alicia")])).evaluate(&linked());
        let refused = evaluation.refused.unwrap();
        assert_eq!((evaluation.matched, refused.problem), (None, name::check(name).unwrap_err()), "{name}");
        let [warning] = &evaluation.warnings[..] else { panic!("{:?}", evaluation.warnings) };
        assert!(warning.starts_with(&format!("Identity {ALICIA} is mapped to '")), "{warning}");
        assert!(!warning.contains('\n') && warning.len() < 600);
    }
}

#[test]
fn a_file_that_is_no_mapping_is_refused_with_the_place() {
    let no_mapping = expression(json!([{"source": "{id}", "match": "x"}]));
    let cases = [
        (json!({"a": 1}), "InvalidMappingError", "Expected a list of identity mappings"),
        (json!(["x"]), "InvalidMappingError", "Invalid mapping or map config (index: 0)"),
        (
            json!([constant("a"), {}]),
            "InvalidMappingError",
            "Invalid map config (index: 1): DATA_TYPE is missing",
        ),
        (
            json!([{"DATA_TYPE": ""}]),
            "InvalidMappingError",
            "Invalid map config (index: 0): DATA_TYPE is missing",
        ),
        (
            json!([{"DATA_TYPE": "external_identity_mapping#2.0.0", "command": ["x"]}]),
            "ValueError",
            "Unsupported DATA_TYPE (index: 0): external_identity_mapping#2.0.0; supported is external_identity_mapping#1.0.0",
        ),
        (
            json!([{"DATA_TYPE": "external_identity_mapping#1.0.0"}]),
            "KeyError",
            "'command' is missing (index: 0)",
        ),
        (
            json!([{"DATA_TYPE": "expression_identity_mapping#1.0.0"}]),
            "KeyError",
            "'mappings' is missing (index: 0)",
        ),
        (json!([no_mapping]), "KeyError", "'output' is missing (index: 0, mapping: 0)"),
        (
            json!([expression(json!([{"source": "s", "match": "x\\q", "output": "o"}]))]),
            "InvalidMappingError",
            "x\\q - Invalid \\ expression: \\q (index: 0, mapping: 0)",
        ),
        (
            json!([expression(json!([{"source": "s", "match": "x", "output": "o", "literal": "no"}]))]),
            "TypeError",
            "'literal' must be true or false (index: 0, mapping: 0)",
        ),
        (json!(vec![constant("a"); 40]), "InvalidMappingError", "40 mappers; at most 32 are allowed"),
    ];
    for (document, exception, text) in cases {
        let error = parse(&document).unwrap_err();
        assert_eq!((error.exception(), error.to_string().as_str()), (exception, text));
    }
    let error = Mapping::parse(b"[{", &settings()).unwrap_err();
    assert_eq!(error.exception(), "JSONDecodeError");
    let deep = "[".repeat(100_000);
    assert!(Mapping::parse(deep.as_bytes(), &settings()).is_err());
}

#[test]
fn what_is_accepted_with_a_warning() {
    let warnings =
        |document: Value| parse(&document).unwrap().1.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        warnings(json!([{"DATA_TYPE": "ldap#1"}, constant("a")])),
        ["No identity mapper found for: ldap#1 (index: 0)"]
    );
    for nothing in [json!(null), json!({}), json!([])] {
        assert_eq!(
            warnings(nothing),
            ["The identity mapping has no mapper: nobody is mapped to a local user"]
        );
    }
    let alternatives = expression(json!([{"source": "{name}", "match": "alicia|bob", "output": "{name}"}]));
    let [warning] = &warnings(json!([alternatives]))[..] else { panic!() };
    assert!(
        warning.starts_with("alicia|bob has alternatives outside of parentheses (index: 0, mapping: 0)."),
        "{warning}"
    );
}

#[test]
fn errors_and_warnings_stay_on_one_line() {
    let entry = |pattern: &str| expression(json!([{"source": "{a\nb}", "match": pattern, "output": "x\n"}]));
    for pattern in ["a\\\n", "a\n*?", "(?\n)", "a\n|b"] {
        let text = match parse(&json!([entry(pattern), {"DATA_TYPE": "x\ny"}])) {
            Ok((mapping, warnings)) => {
                let evaluation = mapping.evaluate(&linked());
                evaluation.warnings.concat() + &warnings.iter().map(ToString::to_string).collect::<String>()
            }
            Err(error) => error.to_string(),
        };
        assert!(!text.is_empty() && !text.contains(char::is_control), "{text}");
    }
}

#[test]
fn warnings_do_not_flood_the_log() {
    let mapping = json!({"source": "{name}", "match": "a|b", "output": "x"});
    let (_, warnings) = parse(&json!([expression(json!(vec![mapping; 900]))])).unwrap();
    assert_eq!((warnings.len(), warnings.last()), (21, Some(&Warning::More(880))));
}

#[test]
fn a_person_with_very_many_identities_is_not_mapped() {
    let many = vec![linked()[0].clone(); 300];
    let evaluation = mapping(&json!([constant("alicia")])).evaluate(&many);
    assert_eq!((evaluation.matched, evaluation.candidates.len(), evaluation.warnings.len()), (None, 0, 1));
}

#[test]
fn candidates_stay_small_enough_for_heartbeats() {
    let long = expression(json!([{"source": "{id}", "match": ".*", "output": "x".repeat(4000)}]));
    let mut mappers = vec![constant("alicia")];
    mappers.extend(vec![long; 31]);
    let people = vec![linked()[0].clone(); 20];
    let evaluation = mapping(&json!(mappers)).evaluate(&people);
    assert_eq!(evaluation.matched.unwrap().local_user, "alicia");
    let size = serde_json::to_vec(&evaluation.candidates).unwrap().len();
    assert!((100_000..300_000).contains(&size), "{size}");
    assert_eq!(evaluation.candidates.len(), 32);
}

#[test]
fn a_program_that_hangs_is_skipped() {
    let started = Instant::now();
    let evaluation = mapping(&json!([script("sleep 1000"), constant("alicia")])).evaluate(&linked());
    assert_eq!(evaluation.matched.unwrap().local_user, "alicia");
    assert!(
        evaluation.warnings[0].contains("(TimeoutExpired) /bin/sh did not end within 5 s"),
        "{:?}",
        evaluation.warnings
    );
    assert!(started.elapsed() < EVALUATION_LIMIT);
}
