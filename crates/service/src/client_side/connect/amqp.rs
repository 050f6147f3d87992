//! Forwards the bytes of one connection of a client to the broker and back.

use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;

use super::Near;

pub(super) async fn serve(mut stream: TcpStream, near: Near) {
    // On failure the connection is closed: AMQP clients reconnect by themselves, and `far` has reported why.
    let Ok(mut broker) = near.far.broker().await else { return };
    if let Err(error) = copy_bidirectional(&mut stream, &mut broker).await {
        tracing::debug!(%error, "a connection to the broker failed");
    }
}
