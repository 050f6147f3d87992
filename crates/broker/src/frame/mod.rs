//! Frames: bytes to methods and content, and back, bounded before anything is believed.
//!
//! ```text
//! bytes -> decode -> frames -> (session) assembly -> requests
//! outputs -> encode -> bytes
//! ```
//!
//! Methods are those of `amq-protocol`; the three that carry the traffic (publish, deliver, ack) are read and written
//! here without allocation.

pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod properties;
pub(crate) mod table;

/// Frame type, channel and length, before the payload.
pub(crate) const HEADER: usize = 7;

/// What a frame has besides its payload: the header and the end octet.
pub(crate) const OVERHEAD: usize = HEADER + 1;

/// The largest frame before the tuning is done, and the least that may be tuned to.
pub(crate) const UNTUNED: u32 = 4096;

/// What a client says first.
pub(crate) const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";
