//! Replays the fuzzer's seeds and the golden messages.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper of tests that fails has failed the test")]

mod golden;
#[path = "../fuzz/invariants.rs"]
#[allow(unreachable_pub, reason = "the fuzzer's targets include it as well")]
mod invariants;

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let seeds: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|seed| std::fs::read(seed.unwrap().path()).unwrap())
        .collect();
    assert!(!seeds.is_empty());
    seeds
}

#[test]
fn messages() {
    let golden = golden::files().into_iter().map(|(.., path)| std::fs::read(path).unwrap());
    seeds("message").into_iter().chain(golden).for_each(|bytes| invariants::message(&bytes));
}

#[test]
fn buffers() {
    for packed in seeds("buffers") {
        if let Ok(packed) = std::str::from_utf8(&packed) {
            invariants::buffers(packed);
        }
    }
}
