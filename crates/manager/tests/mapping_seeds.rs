//! Checks the invariants of the fuzz targets of identity mapping on their seeds and on random bytes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed unwrap is a failed test; what is printed names the seed"
)]

#[path = "../fuzz/mapping.rs"]
mod invariants;

use std::path::Path;

use proptest::prelude::*;

/// Runs a target on each of its seeds, in the order of their names.
fn replay(target: &str, check: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut seeds: Vec<_> = directory.read_dir().unwrap().map(|it| it.unwrap().path()).collect();
    assert!(seeds.len() > 10, "{} seeds in {}", seeds.len(), directory.display());
    seeds.sort();
    for seed in seeds {
        println!("{}", seed.display());
        check(&std::fs::read(&seed).unwrap());
    }
}

#[test]
fn the_seeds_of_mapping_keep_the_invariants() {
    replay("mapping", invariants::mapping);
}

#[test]
fn the_seeds_of_mapping_pattern_keep_the_invariants() {
    replay("mapping_pattern", invariants::pattern);
}

#[test]
fn the_seeds_of_mapping_answer_keep_the_invariants() {
    replay("mapping_answer", invariants::answer);
}

proptest! {
    #[test]
    fn any_mapping_file_keeps_the_invariants(
        source in r"[{}\\a-z0-1]{0,12}",
        pattern in r"[ab.*?|()\\1]{0,12}",
        output in r"[{}\\a0-1-]{0,12}",
        username in "\\PC{0,20}|[ab\n{}0]{0,12}",
    ) {
        let text = |it: &str| serde_json::to_string(it).unwrap();
        let file = format!(
            r#"[{{"DATA_TYPE": "expression_identity_mapping#1.0.0",
                 "mappings": [{{"source": {}, "match": {}, "output": {}}}]}}]"#,
            text(&source), text(&pattern), text(&output),
        );
        let people = format!(
            r#"[{{"sub": "00000000-0000-4444-8888-111111111111", "status": "used", "username": {}, "a": "x"}}]"#,
            text(&username),
        );
        invariants::mapping(format!("{file}\0{people}").as_bytes());
    }

    #[test]
    fn any_bytes_keep_the_invariants(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        invariants::mapping(&bytes);
        invariants::pattern(&bytes);
        invariants::answer(&bytes);
    }
}
