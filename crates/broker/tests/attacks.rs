//! Attacks through raw sockets: the broker replies with the right code or not at all, keeps to its memory limit, and goes on
//! serving other clients.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod support;

use std::time::Duration;

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, gen_frame, parse_frame};
use amq_protocol::protocol::{AMQPClass, basic, channel, connection};
use amq_protocol::types::{AMQPValue, FieldArray, FieldTable};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use broker::{Config, Limits, QueueOptions};
use support::{Permissions, Server, in_time, message, quick, until};

const HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";

/// A client that sends any bytes.
struct Raw {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Raw {
    async fn connect(server: &Server) -> Raw {
        Raw { stream: TcpStream::connect(server.address).await.unwrap(), read: Vec::new() }
    }

    /// Through the handshake, with channel 1 open.
    async fn open(server: &Server, frame_max: u32) -> Raw {
        let mut raw = Raw::connect(server).await;
        raw.send(HEADER).await;
        raw.method().await;
        raw.send(&start_ok(FieldTable::default(), "secret")).await;
        raw.method().await;
        let tune = connection::TuneOk { channel_max: 0, frame_max, heartbeat: 0 };
        raw.send(&method(0, AMQPClass::Connection(connection::AMQPMethod::TuneOk(tune)))).await;
        let open = connection::Open { virtual_host: "/".into() };
        raw.send(&method(0, AMQPClass::Connection(connection::AMQPMethod::Open(open)))).await;
        raw.method().await;
        raw.send(&open_channel(1)).await;
        raw.method().await;
        raw
    }

    async fn send(&mut self, bytes: &[u8]) {
        // The broker may have closed the connection already, which the test then sees.
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next frame, or `None` at the end of the stream.
    async fn frame(&mut self) -> Option<AMQPFrame> {
        loop {
            if let Ok((rest, frame)) = parse_frame(&self.read[..]) {
                let used = self.read.len() - rest.len();
                self.read.drain(..used);
                return Some(frame);
            }
            if in_time(self.stream.read_buf(&mut self.read)).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    async fn method(&mut self) -> AMQPClass {
        match self.frame().await {
            Some(AMQPFrame::Method(_, method)) => method,
            other => panic!("no method: {other:?}"),
        }
    }

    /// The code with which the broker ends the connection; `None` when it just ends.
    async fn close_code(&mut self) -> Option<u16> {
        while let Some(frame) = self.frame().await {
            if let AMQPFrame::Method(0, AMQPClass::Connection(connection::AMQPMethod::Close(it))) = frame {
                return Some(it.reply_code);
            }
        }
        None
    }
}

fn method(channel: u16, method: AMQPClass) -> Vec<u8> {
    encode(&AMQPFrame::Method(channel, method))
}

fn encode(frame: &AMQPFrame) -> Vec<u8> {
    gen_frame::<Vec<u8>>(frame)(Vec::new().into()).unwrap().into_inner().0
}

fn open_channel(number: u16) -> Vec<u8> {
    method(number, AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})))
}

fn start_ok(client_properties: FieldTable, password: &str) -> Vec<u8> {
    let response = format!("\0somebody\0{password}").into_bytes().into();
    let start = connection::StartOk {
        client_properties,
        mechanism: "PLAIN".into(),
        response,
        locale: "en_US".into(),
    };
    method(0, AMQPClass::Connection(connection::AMQPMethod::StartOk(start)))
}

fn publish(channel: u16, key: &str, body_size: u64, body: &[u8]) -> Vec<u8> {
    let publish =
        basic::Publish { exchange: "".into(), routing_key: key.into(), mandatory: false, immediate: false };
    let mut bytes = method(channel, AMQPClass::Basic(basic::AMQPMethod::Publish(publish)));
    let header = AMQPContentHeader { class_id: 60, body_size, properties: Default::default() };
    bytes.extend(encode(&AMQPFrame::Header(channel, header)));
    if !body.is_empty() {
        bytes.extend(encode(&AMQPFrame::Body(channel, body.to_vec())));
    }
    bytes
}

fn consume(channel: u16, queue: &str, tag: &str, no_ack: bool) -> Vec<u8> {
    let consume = basic::Consume {
        queue: queue.into(),
        consumer_tag: tag.into(),
        no_local: false,
        no_ack,
        exclusive: false,
        nowait: false,
        arguments: FieldTable::default(),
    };
    method(channel, AMQPClass::Basic(basic::AMQPMethod::Consume(consume)))
}

/// Checks that the broker still serves another client.
async fn still_serves(server: &Server) {
    let mut raw = Raw::open(server, 131_072).await;
    server.handle.declare_queue("alive", QueueOptions::default()).unwrap();
    raw.send(&consume(1, "alive", "c", true)).await;
    raw.method().await;
    server.handle.publish(message("alive", "still"));
    let AMQPClass::Basic(basic::AMQPMethod::Deliver(_)) = raw.method().await else { panic!("no delivery") };
}

#[tokio::test]
async fn nested_tables_are_refused_before_they_are_parsed() {
    let server = Server::plain().await;
    // The value of one field of the client properties: nested arrays, as deep as a frame can hold.
    let mut bytes = start_ok(FieldTable::default(), "secret");
    let mut nested = Vec::new();
    for _ in 0..700 {
        let mut outer = vec![b'A'];
        outer.extend(u32::try_from(nested.len()).unwrap().to_be_bytes());
        outer.extend(nested);
        nested = outer;
    }
    let mut table = vec![1, b'k'];
    table.extend(nested);
    let mut payload = vec![0, 10, 0, 11];
    payload.extend(u32::try_from(table.len()).unwrap().to_be_bytes());
    payload.extend(table);
    payload.extend(&bytes.split_off(15));
    let mut hostile = vec![1, 0, 0];
    let end = payload.pop();
    assert_eq!(end, Some(0xce));
    hostile.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    hostile.extend(payload);
    hostile.push(0xce);
    let mut raw = Raw::connect(&server).await;
    raw.send(HEADER).await;
    raw.method().await;
    raw.send(&hostile).await;
    assert_eq!(raw.close_code().await, Some(502));

    // The same in the arguments of a method and in the headers of a message, after the log-in.
    let deep = (0..40).fold(AMQPValue::Void, |inner, _| {
        let mut array = FieldArray::default();
        array.push(inner);
        AMQPValue::FieldArray(array)
    });
    let mut arguments = FieldTable::default();
    arguments.insert("k".into(), deep);
    let mut raw = Raw::open(&server, 131_072).await;
    let declare = amq_protocol::protocol::queue::Declare {
        queue: "q".into(),
        passive: false,
        durable: false,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments: arguments.clone(),
    };
    let declare = amq_protocol::protocol::queue::AMQPMethod::Declare(declare);
    raw.send(&method(1, AMQPClass::Queue(declare))).await;
    assert_eq!(raw.close_code().await, Some(502));
    let mut raw = Raw::open(&server, 131_072).await;
    let properties = amq_protocol::protocol::BasicProperties::default().with_headers(arguments);
    let header = AMQPContentHeader { class_id: 60, body_size: 1, properties };
    let mut bytes = publish(1, "q", 1, b"");
    bytes.truncate(bytes.len() - 22);
    bytes.extend(encode(&AMQPFrame::Header(1, header)));
    raw.send(&bytes).await;
    assert_eq!(raw.close_code().await, Some(502));
    still_serves(&server).await;
}

#[tokio::test]
async fn frames_larger_than_agreed_are_refused_at_their_header() {
    let server = Server::plain().await;
    let mut raw = Raw::connect(&server).await;
    raw.send(HEADER).await;
    raw.method().await;
    // Before the tuning 4096 bytes are the limit, after it what was agreed.
    raw.send(&[1, 0, 0, 0, 0, 0x10, 0]).await;
    assert_eq!(raw.close_code().await, Some(501));
    let mut raw = Raw::open(&server, 8_192).await;
    raw.send(&[3, 0, 1, 0xff, 0xff, 0xff, 0xff]).await;
    assert_eq!(raw.close_code().await, Some(501));
    let mut raw = Raw::connect(&server).await;
    raw.send(b"GET / HTTP/1.1\r\n\r\n").await;
    let mut answer = Vec::new();
    let _ = raw.stream.read_to_end(&mut answer).await;
    assert_eq!(answer, HEADER, "a client of another protocol is sent the header of this one");
    still_serves(&server).await;
}

#[tokio::test]
async fn contents_out_of_order_end_the_connection() {
    let server = Server::plain().await;
    let header = |size| {
        let it = AMQPContentHeader { class_id: 60, body_size: size, properties: Default::default() };
        encode(&AMQPFrame::Header(1, it))
    };
    let cut = |bytes: Vec<u8>, tail: usize| bytes[..bytes.len() - tail].to_vec();
    let only_method = cut(publish(1, "q", 1, b""), header(1).len());
    let cases: [(Vec<u8>, u16); 7] = [
        (header(1), 505),
        (encode(&AMQPFrame::Body(1, vec![1])), 505),
        ([only_method.clone(), open_channel(1)].concat(), 505),
        ([only_method.clone(), encode(&AMQPFrame::Body(1, vec![1]))].concat(), 505),
        (publish(1, "q", 1, b"more than one byte"), 505),
        (publish(77, "q", 1, b"1"), 504),
        (open_channel(1), 504),
    ];
    for (index, (bytes, code)) in cases.into_iter().enumerate() {
        let mut raw = Raw::open(&server, 131_072).await;
        raw.send(&bytes).await;
        assert_eq!(raw.close_code().await, Some(code), "case {index}");
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn too_many_handshakes_close_only_the_oldest_handshakes() {
    let config = Config { handshakes: 100, ..quick() };
    let server = Server::start(config, Permissions::default()).await;
    let established = server.connect("somebody").await;
    let mut half_open = Vec::new();
    for number in 0..1_000 {
        let mut raw = Raw::connect(&server).await;
        if number % 2 == 0 {
            raw.send(HEADER).await;
        }
        half_open.push(raw);
    }
    until(|| server.handle.stats().connections <= 102).await;
    assert!(established.status().connected());
    still_serves(&server).await;
    // A handshake that takes too long is closed, too.
    let server = Server::start(
        Config { handshake_timeout: Duration::from_millis(50), ..quick() },
        Permissions::default(),
    )
    .await;
    let mut raw = Raw::connect(&server).await;
    raw.send(HEADER).await;
    raw.method().await;
    assert!(raw.frame().await.is_none(), "the connection ends");
}

#[tokio::test]
async fn wrong_credentials_in_a_loop_get_403_and_nothing_else() {
    let server = Server::start(Config { log_ins: 4, ..quick() }, Permissions::default()).await;
    let mut capabilities = FieldTable::default();
    capabilities.insert("authentication_failure_close".into(), AMQPValue::Boolean(true));
    let mut properties = FieldTable::default();
    properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
    for number in 0..200 {
        let mut raw = Raw::connect(&server).await;
        raw.send(HEADER).await;
        raw.method().await;
        let understands = number % 2 == 0;
        let properties = if understands { properties.clone() } else { FieldTable::default() };
        raw.send(&start_ok(properties, "wrong")).await;
        assert_eq!(raw.close_code().await, understands.then_some(403));
    }
    until(|| server.handle.stats().connections == 0).await;
    still_serves(&server).await;
}

#[tokio::test]
async fn channels_and_consumers_are_limited() {
    let limits = Limits { channels: 10, consumers: 5, ..Limits::default() };
    let server = Server::start(quick(), Permissions { limits, ..Permissions::default() }).await;
    server.handle.declare_queue("q", QueueOptions::default()).unwrap();
    let raw_open = async || {
        let mut raw = Raw::connect(&server).await;
        raw.send(HEADER).await;
        raw.method().await;
        raw.send(&start_ok(FieldTable::default(), "secret")).await;
        let AMQPClass::Connection(connection::AMQPMethod::Tune(tune)) = raw.method().await else { panic!() };
        assert_eq!(tune.channel_max, 10);
        let tune = connection::TuneOk { channel_max: 0, frame_max: 0, heartbeat: 0 };
        raw.send(&method(0, AMQPClass::Connection(connection::AMQPMethod::TuneOk(tune)))).await;
        let open = connection::Open { virtual_host: "/".into() };
        raw.send(&method(0, AMQPClass::Connection(connection::AMQPMethod::Open(open)))).await;
        raw.method().await;
        raw
    };
    let mut raw = raw_open().await;
    for number in 1..=11 {
        raw.send(&open_channel(number)).await;
    }
    assert_eq!(raw.close_code().await, Some(530));
    let mut raw = raw_open().await;
    raw.send(&open_channel(1)).await;
    for number in 1..=6 {
        raw.send(&consume(1, "q", &format!("c{number}"), false)).await;
    }
    assert_eq!(raw.close_code().await, Some(506));
    until(|| server.handle.stats().consumers == 0).await;
    still_serves(&server).await;
}

#[tokio::test]
async fn a_flood_to_a_consumer_that_never_reads_stops_the_flood_only() {
    let limit = 4 << 20;
    let config = Config { memory_limit: limit, output_window: 64 << 10, ..quick() };
    let server = Server::start(config, Permissions::default()).await;
    for name in ["flooded", "other"] {
        server.handle.declare_queue(name, QueueOptions::default()).unwrap();
    }
    let mut deaf = Raw::open(&server, 131_072).await;
    deaf.send(&consume(1, "flooded", "deaf", true)).await;
    let mut flood = Raw::open(&server, 131_072).await;
    // Far more tiny messages than the memory limit allows.
    let (writer, publisher) = (flood.stream, publish(1, "flooded", 1, b"x").repeat(1_000));
    let (_reader, mut writer) = writer.into_split();
    let flooding = tokio::spawn(async move {
        for _ in 0..400 {
            if writer.write_all(&publisher).await.is_err() {
                return;
            }
        }
    });
    flood.read.clear();
    until(|| server.handle.stats().paused == 1).await;
    let stats = server.handle.stats();
    assert!(stats.memory < limit + (1 << 20), "{stats:?}");
    // A publisher into another queue is not paused, and its consumer gets what it sends.
    let mut other = Raw::open(&server, 131_072).await;
    other.send(&consume(1, "other", "c", true)).await;
    other.method().await;
    for _ in 0..100 {
        other.send(&publish(1, "other", 1, b"y")).await;
        let AMQPClass::Basic(basic::AMQPMethod::Deliver(_)) = other.method().await else {
            panic!("no delivery")
        };
        other.frame().await;
        other.frame().await;
    }
    assert_eq!(server.handle.stats().paused, 1);
    assert!(!flooding.is_finished());
    // When the queue is purged, the flood goes on to its end.
    while !flooding.is_finished() {
        server.handle.purge_queue("flooded");
        assert!(server.handle.stats().memory < limit + (1 << 20));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    flooding.await.unwrap();
}

#[tokio::test]
async fn a_client_is_notified_when_it_is_paused_and_resumed() {
    let config = Config { memory_limit: 100_000, ..quick() };
    let server = Server::start(config, Permissions::default()).await;
    server.handle.declare_queue("q", QueueOptions::default()).unwrap();
    let mut capabilities = FieldTable::default();
    capabilities.insert("connection.blocked".into(), AMQPValue::Boolean(true));
    let mut properties = FieldTable::default();
    properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
    let mut raw = Raw::connect(&server).await;
    raw.send(HEADER).await;
    raw.method().await;
    raw.send(&start_ok(properties, "secret")).await;
    raw.method().await;
    let tune = connection::TuneOk { channel_max: 0, frame_max: 0, heartbeat: 0 };
    raw.send(&method(0, AMQPClass::Connection(connection::AMQPMethod::TuneOk(tune)))).await;
    let open = connection::Open { virtual_host: "/".into() };
    raw.send(&method(0, AMQPClass::Connection(connection::AMQPMethod::Open(open)))).await;
    raw.method().await;
    raw.send(&open_channel(1)).await;
    raw.method().await;
    raw.send(&publish(1, "q", 100_000, &[1; 100_000])).await;
    let AMQPClass::Connection(connection::AMQPMethod::Blocked(_)) = raw.method().await else {
        panic!("not notified")
    };
    raw.send(&publish(1, "q", 1, b"2")).await;
    assert_eq!(server.handle.queue("q").unwrap().ready, 1, "later messages are not read");
    server.handle.purge_queue("q");
    let AMQPClass::Connection(connection::AMQPMethod::Unblocked(_)) = raw.method().await else {
        panic!("not notified")
    };
    until(|| server.handle.queue("q").unwrap().ready == 1).await;
}

#[tokio::test]
async fn announced_bodies_take_no_more_than_their_share() {
    let limits = Limits { body: 8 << 20, ..Limits::default() };
    let config = Config { arriving_limit: 16 << 20, ..quick() };
    let server = Server::start(config, Permissions { limits, ..Permissions::default() }).await;
    server.handle.declare_queue("q", QueueOptions::default()).unwrap();
    // One larger than allowed closes its channel, not the connection.
    let mut raw = Raw::open(&server, 131_072).await;
    raw.send(&publish(1, "q", (8 << 20) + 1, b"")).await;
    let AMQPClass::Channel(channel::AMQPMethod::Close(it)) = raw.method().await else { panic!("not closed") };
    assert_eq!(it.reply_code, 311);
    // Twenty connections of one user announce eight megabytes each and send a part. There is room for one of them; the
    // others are not read.
    let mut promising = Vec::new();
    for _ in 0..20 {
        let mut raw = Raw::open(&server, 131_072).await;
        raw.send(&publish(1, "q", 8 << 20, &[0; 100_000])).await;
        promising.push(raw);
    }
    // The rest of the second body is more than the buffers of its socket hold, so it can't be sent while it is not read.
    let rest = |mut raw: Raw| {
        tokio::spawn(async move {
            let body = vec![0; 100_000];
            let piece = encode(&AMQPFrame::Body(1, body.clone()));
            let mut left = (8 << 20) - body.len();
            while left >= body.len() {
                raw.send(&piece).await;
                left -= body.len();
            }
            raw.send(&encode(&AMQPFrame::Body(1, vec![0; left]))).await;
            raw
        })
    };
    promising.truncate(3);
    let (third, second, first) =
        (promising.pop().unwrap(), promising.pop().unwrap(), promising.pop().unwrap());
    let second = rest(second);
    still_serves(&server).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!second.is_finished(), "it was read although there was no room");
    assert_eq!(server.handle.queue("q").unwrap().ready, 0);
    // When the first is complete, there is room for the next, and so on.
    let _first = in_time(rest(first)).await.unwrap();
    let _second = in_time(second).await.unwrap();
    let _third = in_time(rest(third)).await.unwrap();
    until(|| server.handle.queue("q").unwrap().ready == 3).await;
}

#[tokio::test]
async fn heartbeats_are_sent_and_silent_clients_are_closed() {
    let server = Server::plain().await;
    let mut raw = Raw::connect(&server).await;
    raw.send(HEADER).await;
    raw.method().await;
    raw.send(&start_ok(FieldTable::default(), "secret")).await;
    raw.method().await;
    let tune = connection::TuneOk { channel_max: 0, frame_max: 0, heartbeat: 1 };
    raw.send(&method(0, AMQPClass::Connection(connection::AMQPMethod::TuneOk(tune)))).await;
    let open = connection::Open { virtual_host: "/".into() };
    raw.send(&method(0, AMQPClass::Connection(connection::AMQPMethod::Open(open)))).await;
    raw.method().await;
    // This client sends nothing: the broker sends heartbeats, and closes the connection after two intervals.
    let mut beats = 0;
    while let Some(frame) = raw.frame().await {
        assert_eq!(frame, AMQPFrame::Heartbeat);
        beats += 1;
    }
    assert!(beats >= 2, "{beats} heartbeats");
    until(|| server.handle.stats().connections == 0).await;
}
