//! An endpoint that only sends heartbeats, over one AMQP connection.
//!
//! A client library gives each connection a thread of its own, and ten thousand threads cost more than what is
//! measured. This one writes its few frames itself, and leaves unread what the broker says once the channel is open.

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wire::EndpointId;
use wire::queue::{exchange, heartbeat_key};

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const END: u8 = 0xce;

/// Class and method.
type Kind = (u16, u16);
const START: Kind = (10, 10);
const START_OK: Kind = (10, 11);
const TUNE: Kind = (10, 30);
const TUNE_OK: Kind = (10, 31);
const OPEN: Kind = (10, 40);
const OPEN_OK: Kind = (10, 41);
const CHANNEL_OPEN: Kind = (20, 10);
const CHANNEL_OPEN_OK: Kind = (20, 11);
const PUBLISH: Kind = (60, 40);

pub(crate) struct Reporter {
    pub(crate) id: EndpointId,
    stream: TcpStream,
}

impl Reporter {
    /// Connects to `amqp://user:password@address/…`.
    pub(crate) async fn connect(id: EndpointId, url: &str) -> anyhow::Result<Self> {
        let (user, rest) =
            url.strip_prefix("amqp://").and_then(|it| it.split_once('@')).context("no AMQP URL")?;
        let (user, password) = user.split_once(':').context("no password")?;
        let address = rest.split('/').next().unwrap_or(rest);
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
        expect(&mut stream, START).await?;
        let mut arguments = vec![0; 4];
        short(&mut arguments, "PLAIN");
        let response = format!("\0{user}\0{password}");
        arguments.extend(u32::try_from(response.len())?.to_be_bytes());
        arguments.extend(response.as_bytes());
        short(&mut arguments, "en_US");
        stream.write_all(&method(0, START_OK, &arguments)).await?;
        // Accepts the limits that the broker offers, its heartbeat interval too.
        let offered = expect(&mut stream, TUNE).await?;
        let mut last = method(0, TUNE_OK, &offered);
        last.extend(method(0, OPEN, b"\x01/\x00\x00"));
        stream.write_all(&last).await?;
        expect(&mut stream, OPEN_OK).await?;
        stream.write_all(&method(1, CHANNEL_OPEN, b"\x00")).await?;
        expect(&mut stream, CHANNEL_OPEN_OK).await?;
        Ok(Self { id, stream })
    }

    /// Publishes `report` without waiting for a confirmation.
    pub(crate) async fn beat(&mut self, report: &[u8]) -> anyhow::Result<()> {
        let mut arguments = vec![0; 2];
        short(&mut arguments, exchange::HEARTBEATS);
        short(&mut arguments, &heartbeat_key(self.id));
        arguments.push(1); // mandatory
        let mut header = vec![0, 60, 0, 0];
        header.extend((report.len() as u64).to_be_bytes());
        header.extend([0, 0]);
        let mut frames = method(1, PUBLISH, &arguments);
        frames.extend(frame(HEADER, 1, &header));
        frames.extend(frame(BODY, 1, report));
        Ok(self.stream.write_all(&frames).await?)
    }
}

fn short(to: &mut Vec<u8>, text: &str) {
    to.push(u8::try_from(text.len()).expect("the names used here are short"));
    to.extend(text.as_bytes());
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("reports are short");
    let mut frame = vec![kind];
    frame.extend(channel.to_be_bytes());
    frame.extend(length.to_be_bytes());
    frame.extend(payload);
    frame.push(END);
    frame
}

fn method(channel: u16, (class, method): Kind, arguments: &[u8]) -> Vec<u8> {
    let mut payload = [class.to_be_bytes(), method.to_be_bytes()].concat();
    payload.extend(arguments);
    frame(METHOD, channel, &payload)
}

/// Reads one frame, which must be this method; its arguments.
async fn expect(stream: &mut TcpStream, (class, method): Kind) -> anyhow::Result<Vec<u8>> {
    let mut head = [0; 7];
    stream.read_exact(&mut head).await.context("the broker hung up")?;
    let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
    let mut payload = vec![0; length + 1];
    stream.read_exact(&mut payload).await?;
    let kind = [class.to_be_bytes(), method.to_be_bytes()].concat();
    ensure!(payload.starts_with(&kind), "the broker says {:?} instead of {class}.{method}", payload.get(..4));
    payload.truncate(length);
    Ok(payload.split_off(4))
}
