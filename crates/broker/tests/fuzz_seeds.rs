//! Checks the invariants of the fuzz targets on their seeds and on random bytes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed unwrap is a failed test; what is printed names the seed"
)]

#[path = "../fuzz/invariants.rs"]
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
fn the_seeds_of_frames_keep_the_invariants() {
    replay("frames", invariants::frames);
}

#[test]
fn the_seeds_of_session_keep_the_invariants() {
    replay("session", invariants::session);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Fails when bytes before any log-in panic, hang or leave something behind.
    #[test]
    fn any_first_bytes_come_to_an_end(
        header in prop::bool::weighted(0.9),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut stream = if header { b"AMQP\x00\x00\x09\x01".to_vec() } else { Vec::new() };
        stream.extend(bytes);
        invariants::frames(&stream);
    }

    /// Fails when a client that has logged in can leave something behind, whatever it does.
    #[test]
    fn any_session_leaves_nothing_behind(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        invariants::session(&bytes);
    }
}
