//! One connection of a client to the broker: bytes, to and fro. Who may do what there, the broker decides.

use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;

use super::Near;

pub(super) async fn serve(mut stream: TcpStream, near: Near) {
    // Whoever can't be served is hung up on: clients of AMQP come again by themselves, and `far` has said why.
    let Ok(mut broker) = near.far.broker().await else { return };
    if let Err(error) = copy_bidirectional(&mut stream, &mut broker).await {
        tracing::debug!(%error, "a connection to the broker ended badly");
    }
}
