//! One connection can't starve another. The bounds are in messages of the one that floods, never in times: everything
//! runs on one thread, so that whose turn it is is all that counts.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod support;

use std::sync::Arc;

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, gen_frame, parse_frame};
use amq_protocol::protocol::{AMQPClass, basic, channel, connection};
use amq_protocol::types::FieldTable;
use broker::{Broker, Handle, QueueOptions};
use support::{Rules, message, quick};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// What a connection may read or write in one turn, and what it may take in at once besides.
const TURN: usize = (256 + 64) << 10;

fn encode(frame: &AMQPFrame) -> Vec<u8> {
    gen_frame::<Vec<u8>>(frame)(Vec::new().into()).unwrap().into_inner().0
}

fn method(channel: u16, method: AMQPClass) -> Vec<u8> {
    encode(&AMQPFrame::Method(channel, method))
}

fn publish(key: &str, body: &[u8]) -> Vec<u8> {
    let publish =
        basic::Publish { exchange: "".into(), routing_key: key.into(), mandatory: false, immediate: false };
    let mut bytes = method(1, AMQPClass::Basic(basic::AMQPMethod::Publish(publish)));
    let header =
        AMQPContentHeader { class_id: 60, body_size: body.len() as u64, properties: Default::default() };
    bytes.extend(encode(&AMQPFrame::Header(1, header)));
    bytes.extend(encode(&AMQPFrame::Body(1, body.to_vec())));
    bytes
}

struct Client {
    stream: DuplexStream,
    read: Vec<u8>,
}

impl Client {
    /// A connection with channel 1, over a pipe of `size` bytes each way.
    async fn open(handle: &Handle, size: usize) -> Client {
        let (stream, other) = tokio::io::duplex(size);
        let serving = handle.clone();
        tokio::spawn(async move { serving.serve(other, None, false).await });
        let mut client = Client { stream, read: Vec::new() };
        let start = connection::StartOk {
            client_properties: FieldTable::default(),
            mechanism: "PLAIN".into(),
            response: b"\0somebody\0secret".to_vec().into(),
            locale: "en_US".into(),
        };
        let tune = connection::TuneOk { channel_max: 0, frame_max: 0, heartbeat: 0 };
        let open = connection::Open { virtual_host: "/".into() };
        let mut bytes = b"AMQP\x00\x00\x09\x01".to_vec();
        bytes.extend(method(0, AMQPClass::Connection(connection::AMQPMethod::StartOk(start))));
        bytes.extend(method(0, AMQPClass::Connection(connection::AMQPMethod::TuneOk(tune))));
        bytes.extend(method(0, AMQPClass::Connection(connection::AMQPMethod::Open(open))));
        bytes.extend(method(1, AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {}))));
        client.stream.write_all(&bytes).await.unwrap();
        for _ in 0..4 {
            client.frame().await;
        }
        client
    }

    async fn frame(&mut self) -> AMQPFrame {
        loop {
            if let Ok((rest, frame)) = parse_frame(&self.read[..]) {
                let used = self.read.len() - rest.len();
                self.read.drain(..used);
                return frame;
            }
            assert_ne!(self.stream.read_buf(&mut self.read).await.unwrap(), 0, "the connection ended");
        }
    }

    async fn consume(&mut self, queue: &str) {
        let consume = basic::Consume {
            queue: queue.into(),
            consumer_tag: "c".into(),
            no_local: false,
            no_ack: true,
            exclusive: false,
            nowait: false,
            arguments: FieldTable::default(),
        };
        let consume = method(1, AMQPClass::Basic(basic::AMQPMethod::Consume(consume)));
        self.stream.write_all(&consume).await.unwrap();
        self.frame().await;
    }

    /// Publishes one message to its own queue and waits until it is delivered: three frames.
    async fn there_and_back(&mut self, queue: &str) {
        self.stream.write_all(&publish(queue, b"m")).await.unwrap();
        for _ in 0..3 {
            self.frame().await;
        }
    }
}

fn broker() -> Handle {
    let (broker, handle) = Broker::new(quick(), Arc::new(Rules::default()));
    tokio::spawn(broker.run(Vec::new(), std::future::pending()));
    handle
}

/// A flood of tiny publishes, always ready to be read: more than the polite connection will ever be kept waiting for
/// lies in the pipe from the start.
#[tokio::test(flavor = "current_thread")]
async fn a_flood_of_publishes_does_not_starve_another_connection() {
    let handle = broker();
    for queue in ["flooded", "polite"] {
        handle
            .declare_queue(queue, QueueOptions { max_length: Some(10), ..QueueOptions::default() })
            .unwrap();
    }
    let mut polite = Client::open(&handle, 64 << 10).await;
    polite.consume("polite").await;
    let tiny = publish("flooded", b"x");
    let flood = tiny.repeat((16 << 20) / tiny.len());
    let mut flooding = Client::open(&handle, flood.len() * 2).await.stream;
    // The pipe takes it all at once, before the broker's task has its next turn.
    flooding.write_all(&flood).await.unwrap();
    let per_turn = (TURN / tiny.len()) as u64;
    let all = (flood.len() / tiny.len()) as u64;
    let mut rounds = 0;
    loop {
        let before = handle.stats().published;
        polite.there_and_back("polite").await;
        rounds += 1;
        let meanwhile = handle.stats().published - before;
        if handle.stats().published - rounds >= all {
            break;
        }
        // There and back are two turns of the polite connection; the flood has one beside each, and one it was in.
        assert!(meanwhile <= 3 * per_turn, "{meanwhile} messages went before, {per_turn} fit into a turn");
    }
    assert!(rounds >= all / (3 * per_turn), "{rounds} rounds within {all} messages");
}

/// A consumer with a large backlog that takes all it is given.
#[tokio::test(flavor = "current_thread")]
async fn a_flood_of_deliveries_does_not_starve_another_connection() {
    let handle = broker();
    for queue in ["backlog", "polite"] {
        handle.declare_queue(queue, QueueOptions::default()).unwrap();
    }
    let body = "x".repeat(1_000);
    let count = 20_000;
    for _ in 0..count {
        handle.publish(message("backlog", &body));
    }
    let mut polite = Client::open(&handle, 64 << 10).await;
    polite.consume("polite").await;
    let mut greedy = Client::open(&handle, 64 << 20).await;
    greedy.consume("backlog").await;
    let per_turn = (TURN / body.len()) as u64;
    let mut rounds = 0;
    while handle.queue("backlog").unwrap().ready > 0 {
        let before = handle.stats().delivered;
        polite.there_and_back("polite").await;
        rounds += 1;
        let meanwhile = handle.stats().delivered - before - 1;
        // What is written ahead (512 KB) may be decided in one turn, too.
        let ahead = (512 << 10) / body.len() as u64;
        assert!(meanwhile <= 3 * per_turn + ahead, "{meanwhile} deliveries went before");
    }
    assert!(rounds > 3, "{rounds} rounds while {count} were delivered");
}
