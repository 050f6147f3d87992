//! The link between the engine and its nodes, and between a node and its workers.
//!
//! Both carry the same frames, so what a node forwards it forwards as it came. Between machines the frames run
//! over TLS 1.3, mutual, with keys made for this run and pinned by their fingerprint; between a node and its
//! workers over a socket pair. Payload bytes are never looked into and never re-encoded.

pub(crate) mod frame;
pub(crate) mod keys;
pub(crate) mod message;
pub(crate) mod server;
