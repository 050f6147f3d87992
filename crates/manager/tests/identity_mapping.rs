//! Replays what the package `globus-identity-mapping` 0.4.0 does with mapping files; see `identity_mapping/record.py`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

use manager::mapping::Hits;
use manager::mapping::validate::{Options, Report, validate};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Case {
    name: String,
    document: Value,
    identities: Value,
    upstream: Outcome,
    differs: Option<String>,
    ours: Option<Outcome>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum Outcome {
    Refused { refused: String },
    Loaded { offers: Vec<Offer>, first: Option<String> },
}

/// What a mapper offers, or the name of the exception by which it failed.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum Offer {
    Hits(Vec<Vec<(String, Vec<String>)>>),
    Failed(String),
}

fn run(case: &Case, first: bool) -> Report {
    let (mapping, identities) = (case.document.to_string(), case.identities.to_string());
    validate(mapping.as_bytes(), || Ok(identities.into()), "stdin", Options { first, verbose: false })
}

/// What differs between the outcome and what we do; `None` if nothing does.
fn difference(case: &Case, expected: &Outcome) -> Option<String> {
    let report = run(case, false);
    let Outcome::Loaded { offers, first } = expected else {
        return (report.status != 1).then(|| format!("loaded: {}", report.output));
    };
    if report.status != 0 {
        return Some(report.messages.join("; "));
    }
    let failed = |offer: &&Offer| matches!(offer, Offer::Failed(_));
    let failures =
        report.messages.iter().filter(|it| it.starts_with("  Failed to map identities -- (")).count();
    if offers.iter().filter(failed).count() != failures {
        return Some(format!("{failures} mappers failed: {:?}", report.messages));
    }
    let hits = |offer: &Offer| match offer {
        Offer::Hits(hits) => hits.iter().cloned().map(Hits).collect(),
        Offer::Failed(_) => Vec::new(),
    };
    let all: Vec<Hits> = offers.iter().flat_map(hits).collect();
    let text = serde_json::to_string_pretty(&all).unwrap();
    let printed = match report.output.strip_prefix("\nAll mapped identities: \n") {
        Some(printed) => printed,
        None if report.output == "\nNo identity mapped." => "[]",
        None => return Some(report.output),
    };
    // The text shows the order, too; other characters than ASCII are escaped in it.
    let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    if value(printed) != value(&text) || (text.is_ascii() && printed != text) {
        return Some(format!("offers {printed}"));
    }
    let found = run(case, true).output;
    let expected = format!("\nFirst found mapped identity: {}", first.as_deref().unwrap_or("None"));
    (found != expected).then(|| format!("first: {found}"))
}

#[test]
fn every_case_comes_out_as_upstream_has_it() {
    let cases: Vec<Case> =
        serde_json::from_str(include_str!("identity_mapping/upstream-0.4.0.json")).unwrap();
    assert!(cases.len() > 2000, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let expected = case.ours.as_ref().unwrap_or(&case.upstream);
        if let Some(difference) = difference(case, expected) {
            wrong.push(format!(
                "{}\n  {} on {}\n  expected {expected:?}\n  {difference}",
                case.name, case.document, case.identities
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn each_difference_on_purpose_is_one() {
    let cases: Vec<Case> =
        serde_json::from_str(include_str!("identity_mapping/upstream-0.4.0.json")).unwrap();
    let different: Vec<_> = cases.iter().filter(|it| it.differs.is_some()).collect();
    assert!(different.len() > 15, "{}", different.len());
    for case in different {
        assert_ne!(Some(&case.upstream), case.ours.as_ref(), "{}", case.name);
        assert!(difference(case, &case.upstream).is_some(), "{}: {}", case.name, case.document);
    }
}
