//! Frames: decodes bytes to frames, and checks tables and properties before they are parsed.
//!
//! ```text
//! bytes -> decode -> frames -> (session) assembly -> requests
//! outputs -> (session) encode -> bytes
//! ```
//!
//! Methods are parsed and written by `amq-protocol`, but for the three that carry the traffic (publish, deliver, ack): the
//! session reads and writes those without allocation.

pub(crate) mod decode;
pub(crate) mod properties;
pub(crate) mod table;

/// Frame type, channel and length, before the payload.
pub(crate) const HEADER: usize = 7;

/// The size of a frame without its payload: the header and the end octet.
pub(crate) const OVERHEAD: usize = HEADER + 1;

/// The largest frame before the tuning is done, and the smallest maximum that a client may tune to.
pub(crate) const UNTUNED: u32 = 4096;

/// The first bytes of a client.
pub(crate) const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";
