//! Fuzz target: the bytes of a message. The invariants are in `invariants.rs`.
#![no_main]

#[path = "../invariants.rs"]
#[allow(dead_code)] // the other target uses the rest
mod invariants;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invariants::message(bytes));
