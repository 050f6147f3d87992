//! What the fuzz targets hold, on their seeds and on random bytes, in every test run.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed unwrap is a failed test, which says with which seed it failed"
)]

#[path = "../fuzz/holds.rs"]
mod holds;

use std::path::Path;

use proptest::prelude::*;

/// Hands over every seed of a target, by name.
fn replay(target: &str, holds: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut seeds: Vec<_> = directory.read_dir().unwrap().map(|it| it.unwrap().path()).collect();
    assert!(seeds.len() > 10, "{} seeds in {}", seeds.len(), directory.display());
    seeds.sort();
    for seed in seeds {
        println!("{}", seed.display());
        holds(&std::fs::read(&seed).unwrap());
    }
}

#[test]
fn the_seeds_of_frames_come_to_an_end() {
    replay("frames", holds::frames);
}

#[test]
fn the_seeds_of_session_leave_nothing_behind() {
    replay("session", holds::session);
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
        holds::frames(&stream);
    }

    /// Fails when a client that has logged in can leave something behind, whatever it does.
    #[test]
    fn any_session_leaves_nothing_behind(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        holds::session(&bytes);
    }
}
