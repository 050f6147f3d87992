//! Fuzz target: a pattern, a text, and what is made of them. The invariants are in `mapping.rs`.
#![no_main]

#[path = "../mapping.rs"]
#[allow(dead_code)] // the other targets use the rest
mod invariants;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invariants::pattern(bytes));
