//! Fuzz target: a client's first bytes, before any log-in. The invariants are in `invariants.rs`.
#![no_main]

#[path = "../invariants.rs"]
#[allow(dead_code)] // the other target uses the rest
mod invariants;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invariants::frames(bytes));
