//! What the fuzz targets hold, on random bytes and in every test run.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

#[path = "../fuzz/holds.rs"]
mod holds;

use proptest::prelude::*;

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
