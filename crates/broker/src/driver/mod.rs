//! The driver: performs the core's actions with sockets, timers and callbacks, and decides nothing itself.

mod body_quota;
pub(crate) mod connection;
mod handshakes;
pub(crate) mod outbox;
pub(crate) mod shared;
