//! Fuzz target. The invariants are in `launching.rs`, and what the bytes are is in `README.md`.
#![no_main]

#[path = "../launching.rs"]
#[allow(dead_code)] // another target uses the rest
mod invariants;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invariants::launch(bytes));
