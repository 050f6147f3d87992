//! A client that has logged in and does what the bytes say. What must hold is in `holds.rs`; this may only hand it bytes.
#![no_main]

#[path = "../holds.rs"]
mod holds;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| holds::session(bytes));
