//! Fuzz target: packed buffers. The invariants are in `invariants.rs`.
#![no_main]

#[path = "../invariants.rs"]
#[allow(dead_code)] // the other target uses the rest
mod invariants;

libfuzzer_sys::fuzz_target!(|packed: &str| invariants::buffers(packed));
