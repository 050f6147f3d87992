//! The link between the engine and its nodes, and between a node and its workers.
//!
//! Both carry the same frames, so a node forwards them unchanged. Between machines frames run over mutual TLS 1.3,
//! with keys that are generated for this run and pinned by fingerprint; between a node and its workers over socket
//! pairs. Payload bytes are never decoded or re-encoded.

pub(crate) mod frame;
pub(crate) mod keys;
pub(crate) mod message;
pub(crate) mod server;
