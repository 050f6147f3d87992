//! The broker's settings.

use std::time::Duration;

/// Settings with working defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// The only virtual host. Clients that ask for another get the error that it does not exist.
    pub virtual_host: String,
    /// Named in the server properties of the handshake.
    pub product: String,
    pub version: String,
    /// Largest frame offered in Tune. Before Tune, frames are held to 4096 bytes.
    pub frame_max: u32,
    /// Seconds between heartbeats, offered in Tune; the client's reply decides. 0 offers none.
    pub heartbeat: u16,
    /// Bytes of messages in memory (waiting, delivered and unacknowledged, at sinks). Above it, connections are paused
    /// that publish into the queues that hold most.
    pub memory_limit: usize,
    /// Bytes of message bodies that are being received, over all connections. Further large bodies wait, and so do those
    /// of one user beyond half of what the other users leave.
    pub arriving_limit: usize,
    /// How long a large body may take to arrive, besides one second for each 64 kB of it.
    pub arrival_timeout: Duration,
    /// Bytes of deliveries written ahead to one connection.
    pub output_window: usize,
    /// How often consumers may requeue a message (nack, reject, recover) before it is dropped.
    pub delivery_limit: u32,
    /// How long a handshake may take, from the first byte to the open connection.
    pub handshake_timeout: Duration,
    /// Connections in their handshake at a time. One address may have half of what the others leave; with one more, its
    /// oldest is closed.
    pub handshakes: usize,
    /// Log-ins that the embedder checks at a time; further ones wait.
    pub log_ins: usize,
    /// How long the reply to wrong credentials is delayed, to slow down guessing.
    pub refusal_delay: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            virtual_host: "/".into(),
            product: "Farcall".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            frame_max: 131_072,
            heartbeat: 60,
            memory_limit: 512 << 20,
            arriving_limit: 256 << 20,
            arrival_timeout: Duration::from_secs(30),
            output_window: 512 << 10,
            delivery_limit: 20,
            handshake_timeout: Duration::from_secs(10),
            handshakes: 4_096,
            log_ins: 64,
            refusal_delay: Duration::from_millis(500),
        }
    }
}
