//! Tests of clients that are paused, that don't read, or that only send: which wait, which are closed, which go on.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod support;

use std::time::Duration;

use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::{AMQPClass, basic};
use broker::{Config, QueueOptions};
use support::piped::{Client, broker, encode, publish};
use support::{in_time, message, quick, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// While a connection is paused for memory, its body can't arrive: the time limit for the body must not close it.
#[tokio::test(flavor = "current_thread")]
async fn a_paused_connection_keeps_its_incomplete_body() {
    let patience = Duration::from_millis(20);
    let handle = broker(Config { memory_limit: 100_000, arrival_timeout: patience, ..quick() });
    handle.declare_queue("q", QueueOptions::default()).unwrap();
    let mut client = Client::open(&handle, 8 << 20, 1).await;
    let large = publish("q", &[2; 260 << 10]);
    // The first message is above the limit; what comes with its last bytes begins the second.
    let mut bytes = publish("q", &[1; 150_000]);
    bytes.extend(&large[..200_000]);
    client.stream.write_all(&bytes).await.unwrap();
    until(|| handle.stats().paused == 1).await;
    tokio::time::sleep(patience * 10).await;
    assert_eq!((handle.stats().connections, handle.stats().paused), (1, 1));
    assert_eq!(handle.purge_queue("q"), 1);
    client.stream.write_all(&large[200_000..]).await.unwrap();
    until(|| handle.queue("q").unwrap().ready == 1).await;
}

/// A client that has disappeared takes no bytes: the missing heartbeat closes its connection, also within a large delivery.
#[tokio::test(flavor = "current_thread")]
async fn a_client_that_reads_nothing_is_closed() {
    let handle = broker(quick());
    handle.declare_queue("q", QueueOptions::default()).unwrap();
    let mut client = Client::open(&handle, 64 << 10, 1).await;
    client.consume("q").await;
    handle.publish(message("q", &"x".repeat(4 << 20)));
    until(|| handle.stats().delivered == 1).await;
    until(|| handle.stats().connections == 0).await;
}

/// A client that reads slowly keeps its connection.
#[tokio::test(flavor = "current_thread")]
async fn a_slow_client_keeps_its_connection() {
    let handle = broker(quick());
    handle.declare_queue("q", QueueOptions::default()).unwrap();
    let mut client = Client::open(&handle, 64 << 10, 1).await;
    // No queue takes these: they are returned, and are replies that wait to be read.
    let publish = basic::Publish {
        exchange: "".into(),
        routing_key: "nobody".into(),
        mandatory: true,
        immediate: false,
    };
    let method = AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::Publish(publish)));
    let mut returned = encode(&method);
    let content = returned.len();
    returned.extend(&support::piped::publish("nobody", &[7; 60_000])[content..]);
    let count = 20;
    let (mut stream, mut write) =
        tokio::io::split(std::mem::replace(&mut client.stream, tokio::io::duplex(1).0));
    tokio::spawn(async move {
        write.write_all(&returned.repeat(count)).await.unwrap();
        while write.write_all(&encode(&AMQPFrame::Heartbeat)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    });
    let mut taken = 0;
    while taken < count * 60_000 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let read = in_time(stream.read(&mut [0; 60_000])).await.unwrap();
        assert_ne!(read, 0, "the connection ended after {taken} bytes");
        taken += read;
    }
    assert_eq!(handle.stats().connections, 1);
}

/// A client that sends without reading is read although large deliveries wait for it: if both sides waited for the other to
/// read, they would wait for ever.
#[tokio::test(flavor = "current_thread")]
async fn sending_while_a_delivery_waits_is_no_deadlock() {
    let handle = broker(quick());
    for queue in ["in", "out"] {
        handle.declare_queue(queue, QueueOptions::default()).unwrap();
    }
    let mut client = Client::open(&handle, 64 << 10, 0).await;
    client.consume("in").await;
    for _ in 0..3 {
        handle.publish(message("in", &"x".repeat(1 << 20)));
    }
    until(|| handle.stats().delivered > 0).await;
    for _ in 0..3 {
        let sent = in_time(client.stream.write_all(&publish("out", &[1; 1 << 20]))).await;
        sent.unwrap();
    }
    until(|| handle.queue("out").unwrap().ready == 3).await;
    let mut bodies = 0;
    while bodies < 3 << 20 {
        if let AMQPFrame::Body(_, piece) = client.frame().await {
            bodies += piece.len();
        }
    }
}
