//! Forwards the bytes of one connection of a client to the broker and back.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::TcpStream;

use super::ForwarderState;
use super::connection_limit::CountedConnection;

/// The most that a broker may send before it accepts the client's credential: `start` and `tune`, a frame of 4 KiB at most each.
const LONGEST_HANDSHAKE: usize = 8 << 10;
/// The method `tune`, with which the broker accepts a credential, as its frame's payload begins: class 10, method 30.
const TUNE: [u8; 4] = [0, 10, 0, 30];

pub(super) async fn serve(mut stream: TcpStream, counted: CountedConnection, forwarder: ForwarderState) {
    let connected = async {
        // On failure the connection is closed: AMQP clients reconnect by themselves, and `service_connector` has reported why.
        let mut broker = forwarder.connector.connect_to_broker().await.ok()?;
        log_in(&mut stream, &mut broker).await.ok()?;
        Some(broker)
    };
    let connected = tokio::select! {
        connected = connected => connected,
        () = counted.evicted() => None,
    };
    let Some(mut broker) = connected else { return };
    counted.authenticate();
    if let Err(error) = copy_bidirectional(&mut stream, &mut broker).await {
        tracing::debug!(%error, "a connection to the broker failed");
    }
}

/// Forwards bytes until the broker has accepted the client's credential.
async fn log_in(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    broker: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> io::Result<()> {
    let (mut sent, mut received) = ([0; 4096], Vec::new());
    while !accepts_credential(&received) {
        tokio::select! {
            read = client.read(&mut sent) => {
                let count = read?;
                if count == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                broker.write_all(&sent[..count]).await?;
                broker.flush().await?;
            }
            read = broker.read_buf(&mut received) => {
                let count = read?;
                if count == 0 || received.len() > LONGEST_HANDSHAKE {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                client.write_all(&received[received.len() - count..]).await?;
            }
        }
    }
    Ok(())
}

/// Whether the frames that the broker has sent so far accept the client's credential.
fn accepts_credential(mut frames: &[u8]) -> bool {
    // Type, channel and length; after the payload, one octet ends the frame.
    while let Some((&[_, _, _, a, b, c, d], rest)) = frames.split_first_chunk() {
        if rest.starts_with(&TUNE) {
            return true;
        }
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        frames = rest.get(length + 1..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&[1, 0, 0], &length[..], payload, &[0xce]].concat()
    }

    #[test]
    fn only_the_method_tune_accepts_a_credential() {
        let start = frame(&[&[0, 10, 0, 10][..], &TUNE, &[7; 300]].concat());
        let (tune, close) = (frame(&TUNE), frame(&[0, 10, 0, 50, 0, 0]));
        assert!(!accepts_credential(&start));
        assert!(!accepts_credential(&[&start[..], &close].concat()));
        let accepted = [&start[..], &tune].concat();
        assert!(accepts_credential(&accepted));
        for end in 0..start.len() + 11 {
            assert!(!accepts_credential(&accepted[..end]), "{end}");
        }
    }

    #[tokio::test]
    async fn bytes_go_both_ways_until_the_broker_accepts_the_credential() {
        let (mut client, mut served_client) = tokio::io::duplex(64);
        let (mut reached_broker, mut broker) = tokio::io::duplex(64);
        let logging_in = tokio::spawn(async move { log_in(&mut served_client, &mut reached_broker).await });
        let mut read = [0; 8];
        client.write_all(b"AMQP\0\0\x09\x01").await.unwrap();
        broker.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"AMQP\0\0\x09\x01");
        let tune = frame(&TUNE);
        broker.write_all(&tune).await.unwrap();
        let mut read = vec![0; tune.len()];
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(read, tune);
        logging_in.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_broker_that_never_accepts_a_credential_is_not_listened_to_for_long() {
        let (_client, mut served_client) = tokio::io::duplex(1 << 20);
        let (mut reached_broker, mut broker) = tokio::io::duplex(1 << 20);
        broker.write_all(&frame(&[0; LONGEST_HANDSHAKE])).await.unwrap();
        assert!(log_in(&mut served_client, &mut reached_broker).await.is_err());
    }
}
