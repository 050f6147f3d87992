//! The broker's settings.

use std::time::Duration;

/// Settings with working defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// The one virtual host; any other is answered as one that does not exist.
    pub virtual_host: String,
    /// Named in the server properties of the handshake.
    pub product: String,
    pub version: String,
    /// Largest frame offered in Tune. Before Tune, frames are held to 4096 bytes.
    pub frame_max: u32,
    /// Seconds, offered in Tune; the client's answer decides. 0 offers none.
    pub heartbeat: u16,
    /// Bytes of messages (waiting, delivered and unacknowledged, at sinks) above which connections that publish into
    /// the queues that hold them are paused.
    pub memory_limit: usize,
    /// Bytes of bodies that are still arriving, over all connections. Further large ones wait for their turn, and those of
    /// one holder beyond half of what others leave.
    pub arriving_limit: usize,
    /// For a large body to arrive, besides a second for each 64 kB of it.
    pub arrival_timeout: Duration,
    /// Deliveries written ahead to one connection.
    pub output_window: usize,
    /// How often consumers may requeue a message (nack, reject, recover) before it is dropped.
    pub delivery_limit: u32,
    /// From the first byte to the open connection.
    pub handshake_timeout: Duration,
    /// Connections in their handshake at a time. An address may have half of what others leave; one more pushes out its
    /// oldest.
    pub handshakes: usize,
    /// Log-ins asked of the owner at a time; further ones wait.
    pub log_ins: usize,
    /// How long a wrong password waits for its answer.
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
