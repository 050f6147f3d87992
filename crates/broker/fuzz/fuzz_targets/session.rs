//! Fuzz target: the requests of a client that has logged in. The invariants are in `invariants.rs`.
#![no_main]

#[path = "../invariants.rs"]
#[allow(dead_code)] // the other target uses the rest
mod invariants;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invariants::session(bytes));
