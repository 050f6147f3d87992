//! Reads thousands of mutations of every golden file: cut, flipped, spliced, with members of other types, nested.
//!
//! Nothing may panic. A mutation that can still be read must be written in a form that is read as the same value.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper of tests that fails has failed the test")]

mod golden;

use golden::{Attempt, Rule, files, row};
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::{Value, json};

/// Gives one mutation to a reader.
fn survive(name: &str, attempt: fn(&[u8]) -> Result<Attempt, String>, bytes: &[u8]) -> bool {
    match attempt(bytes) {
        Ok(Attempt { stable, .. }) => {
            assert!(stable, "{name}: reads otherwise the second time: {}", String::from_utf8_lossy(bytes));
            true
        }
        Err(error) => {
            assert!(!error.starts_with("AGAIN"), "{name}: {error}: {}", String::from_utf8_lossy(bytes));
            assert!(error.len() < 2000, "{name}: an error is no place for the whole document");
            false
        }
    }
}

fn each(mut mutate: impl FnMut(&str, fn(&[u8]) -> Result<Attempt, String>, Rule, &[u8])) {
    for (directory, file, path) in files() {
        if let Some(row) = row(&directory, &file) {
            mutate(&format!("{directory}/{file}"), row.attempt, row.rule, &std::fs::read(path).unwrap());
        }
    }
}

fn random(seed: u8) -> TestRng {
    TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32])
}

fn below(random: &mut TestRng, end: usize) -> usize {
    usize::try_from(random.next_u64() % u64::try_from(end.max(1)).unwrap()).unwrap()
}

#[test]
fn cut_short_anywhere() {
    let mut tried = 0;
    each(|name, attempt, rule, bytes| {
        let step = (bytes.len() / 150).max(1);
        for end in (0..bytes.len()).step_by(step) {
            let read = survive(name, attempt, &bytes[..end]);
            assert!(!read || rule == Rule::Form, "{name}: read although cut at {end} of {}", bytes.len());
            tried += 1;
        }
    });
    assert!(tried > 10_000, "only {tried}");
}

#[test]
fn one_byte_changed() {
    let mut random = random(1);
    let mut tried = 0;
    each(|name, attempt, _, bytes| {
        for _ in 0..120 {
            let mut wrong = bytes.to_vec();
            let at = below(&mut random, wrong.len());
            wrong[at] = match random.next_u32() % 4 {
                0 => b"\"\\{}[],:0-n"[below(&mut random, 11)],
                1 => wrong[at] ^ (1 << (random.next_u32() % 8)),
                2 => 0,
                _ => u8::try_from(random.next_u32() % 256).unwrap(),
            };
            survive(name, attempt, &wrong);
            tried += 1;
        }
    });
    assert!(tried > 10_000, "only {tried}");
}

#[test]
fn a_part_moved_doubled_or_removed() {
    let mut random = random(2);
    let mut tried = 0;
    each(|name, attempt, _, bytes| {
        for _ in 0..80 {
            let (a, b) = (below(&mut random, bytes.len()), below(&mut random, bytes.len()));
            let stretch = &bytes[a.min(b)..a.max(b)];
            let mut wrong = bytes.to_vec();
            match random.next_u32() % 3 {
                0 => drop(wrong.drain(a.min(b)..a.max(b))),
                1 => drop(wrong.splice(a..a, stretch.iter().copied())),
                _ => {
                    let rest = wrong.split_off(a);
                    wrong.splice(0..0, rest);
                }
            }
            survive(name, attempt, &wrong);
            tried += 1;
        }
    });
    assert!(tried > 10_000, "only {tried}");
}

/// Pointers to every value in a document.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                places(member, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                places(item, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn every_member_of_every_other_type_and_missing() {
    let strangers = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1.5),
        json!(u64::MAX),
        json!(""),
        json!("not what it should be"),
        json!([]),
        json!({}),
        json!([[[{}]]]),
    ];
    let mut tried = 0;
    each(|name, attempt, rule, bytes| {
        if rule == Rule::Form {
            return;
        }
        let version = usize::from(rule == Rule::Message);
        let Ok(document) = serde_json::from_slice::<Value>(&bytes[version..]) else { return };
        let mut found = Vec::new();
        places(&document, "", &mut found);
        let whole = |value: &Value| [&bytes[..version], &serde_json::to_vec(value).unwrap()].concat();
        for place in found {
            for stranger in &strangers {
                let mut wrong = document.clone();
                *wrong.pointer_mut(&place).unwrap() = stranger.clone();
                survive(name, attempt, &whole(&wrong));
                tried += 1;
            }
            let Some((parent, member)) = place.rsplit_once('/') else { continue };
            let mut wrong = document.clone();
            if let Some(Value::Object(members)) = wrong.pointer_mut(parent) {
                members.remove(&member.replace("~1", "/").replace("~0", "~"));
                survive(name, attempt, &whole(&wrong));
                tried += 1;
            }
        }
    });
    assert!(tried > 10_000, "only {tried}");
}

#[test]
fn unknown_members_are_ignored() {
    each(|name, attempt, rule, bytes| {
        if rule == Rule::Form {
            return;
        }
        let version = usize::from(rule == Rule::Message);
        let Some(rest) = bytes[version..].strip_prefix(b"{") else { return };
        let stranger = br#"{"unheard of":{"a":[1,"two",null]},"#;
        let comma = if rest == b"}" { &stranger[..stranger.len() - 1] } else { &stranger[..] };
        let more = [&bytes[..version], comma, rest].concat();
        assert!(survive(name, attempt, &more), "{name}: {}", attempt(&more).unwrap_err());
    });
}

#[test]
fn deep_nesting_is_refused_in_any_place() {
    let deep = 10_000;
    let towers =
        ["[".repeat(deep), "{\"a\":".repeat(deep), format!("{}{}", "[".repeat(deep), "]".repeat(deep))];
    each(|name, attempt, rule, bytes| {
        if rule == Rule::Form {
            return;
        }
        let version = usize::from(rule == Rule::Message);
        for tower in &towers {
            let wrong = [&bytes[..version], tower.as_bytes()].concat();
            assert!(!survive(name, attempt, &wrong), "{name}: read a tower");
            let Some(rest) = bytes[version..].strip_prefix(b"{") else { continue };
            let member = format!("{{\"unheard of\":{tower},");
            survive(name, attempt, &[&bytes[..version], member.as_bytes(), rest].concat());
        }
    });
}
