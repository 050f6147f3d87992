//! Checks the invariants of the fuzz targets of commands, templates, schemas, environments, launches and hot restarts on their
//! seeds and on random bytes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed unwrap is a failed test; what is printed names the seed"
)]

#[path = "../fuzz/command.rs"]
mod command;
#[path = "../fuzz/launching.rs"]
mod launching;
#[path = "../fuzz/rendering.rs"]
mod rendering;

use std::path::Path;

use proptest::prelude::*;

type Check = fn(&[u8]);

const TARGETS: [(&str, Check); 6] = [
    ("command", command::command),
    ("template", rendering::template),
    ("schema", rendering::schema),
    ("environment", rendering::environment),
    ("launch", launching::launch),
    ("restart", launching::restart),
];

/// The seeds of a target, in the order of their names.
fn seeds(target: &str) -> Vec<std::path::PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut seeds: Vec<_> = directory.read_dir().unwrap().map(|it| it.unwrap().path()).collect();
    assert!(seeds.len() > 10, "{} seeds in {}", seeds.len(), directory.display());
    seeds.sort();
    seeds
}

#[test]
fn the_seeds_keep_the_invariants() {
    for (target, check) in TARGETS {
        for seed in seeds(target) {
            println!("{}", seed.display());
            check(&std::fs::read(&seed).unwrap());
        }
    }
}

#[test]
fn the_seeds_without_one_byte_or_with_another_keep_the_invariants() {
    for (target, check) in TARGETS {
        for seed in seeds(target) {
            println!("{}", seed.display());
            let bytes = std::fs::read(&seed).unwrap();
            // Of a long seed, some places.
            for at in (0..bytes.len()).step_by(bytes.len() / 10 + 1) {
                let mut changed = bytes.clone();
                changed[at] = changed[at].wrapping_add(1);
                check(&changed);
                changed.remove(at);
                check(&changed);
                check(&bytes[..at]);
            }
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_keep_the_invariants(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        for (_, check) in TARGETS {
            check(&bytes);
        }
    }
}
