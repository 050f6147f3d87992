//! Invariants for any bytes that a client sends: no panic, the connection ends, and nothing of it is left in the broker.

use std::sync::Arc;

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, gen_frame};
use amq_protocol::protocol::{
    AMQPClass, BasicProperties, basic, channel, confirm, connection, exchange, queue,
};
use amq_protocol::types::FieldTable;
use broker::{
    AccessControl, Broker, Config, Handle, Limits, LogInFuture, LoggedIn, Login, Operation, Principal,
    QueueOptions,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Everybody;

impl AccessControl for Everybody {
    fn log_in<'a>(&'a self, login: Login) -> LogInFuture<'a> {
        let limits = Limits { body: 10_000, ..Limits::default() };
        Box::pin(async move { Ok(LoggedIn { principal: Principal::new(login.user), limits }) })
    }

    fn may(&self, _: &Principal, _: &Operation<'_>) -> bool {
        true
    }
}

const QUEUES: [&str; 4] = ["q0", "q1", "q2", "q3"];

/// Sends `bytes` as a client's first bytes.
pub(crate) fn frames(bytes: &[u8]) {
    serve(bytes);
}

/// Plays a client that has logged in: each byte selects its next request, and the bytes after it the arguments.
pub(crate) fn session(bytes: &[u8]) {
    let mut stream = b"AMQP\x00\x00\x09\x01".to_vec();
    let start = connection::StartOk {
        client_properties: FieldTable::default(),
        mechanism: "PLAIN".into(),
        response: b"\0somebody\0secret".to_vec().into(),
        locale: "en_US".into(),
    };
    let tune = connection::TuneOk { channel_max: 0, frame_max: 8_192, heartbeat: 0 };
    let open = connection::Open { virtual_host: "/".into() };
    for method in [
        connection::AMQPMethod::StartOk(start),
        connection::AMQPMethod::TuneOk(tune),
        connection::AMQPMethod::Open(open),
    ] {
        stream.extend(encode(&AMQPFrame::Method(0, AMQPClass::Connection(method))));
    }
    for number in 1..3 {
        let open = channel::AMQPMethod::Open(channel::Open {});
        stream.extend(encode(&AMQPFrame::Method(number, AMQPClass::Channel(open))));
    }
    let mut rest = bytes.iter().copied();
    while let Some(choice) = rest.next() {
        stream.extend(step(choice, &mut rest));
    }
    serve(&stream);
}

fn encode(frame: &AMQPFrame) -> Vec<u8> {
    let written = gen_frame::<Vec<u8>>(frame)(Vec::new().into()).expect("memory takes all");
    written.into_inner().0
}

fn step(choice: u8, rest: &mut impl Iterator<Item = u8>) -> Vec<u8> {
    let mut byte = || rest.next().unwrap_or(0);
    let number = 1 + u16::from(byte() & 1);
    let bits = byte();
    let flag = |bit: u8| bits & (1 << bit) != 0;
    let name = QUEUES[usize::from(bits >> 6)];
    let table = FieldTable::default;
    let class = match choice % 20 {
        0 => AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})),
        1 => AMQPClass::Channel(channel::AMQPMethod::CloseOk(channel::CloseOk {})),
        2 => AMQPClass::Channel(channel::AMQPMethod::Flow(channel::Flow { active: flag(0) })),
        3 => AMQPClass::Confirm(confirm::AMQPMethod::Select(confirm::Select { nowait: flag(0) })),
        4 => AMQPClass::Queue(queue::AMQPMethod::Declare(queue::Declare {
            queue: name.into(),
            passive: flag(0),
            durable: flag(1),
            exclusive: flag(2),
            auto_delete: flag(3),
            nowait: flag(4),
            arguments: table(),
        })),
        5 => AMQPClass::Queue(queue::AMQPMethod::Bind(queue::Bind {
            queue: name.into(),
            exchange: if flag(0) { "amq.topic" } else { "amq.fanout" }.into(),
            routing_key: if flag(1) { "#.q0" } else { "q*" }.into(),
            nowait: flag(2),
            arguments: table(),
        })),
        6 => AMQPClass::Queue(queue::AMQPMethod::Purge(queue::Purge { queue: name.into(), nowait: flag(0) })),
        7 if flag(5) => AMQPClass::Queue(queue::AMQPMethod::Delete(queue::Delete {
            queue: name.into(),
            if_unused: flag(0),
            if_empty: flag(1),
            nowait: flag(2),
        })),
        8 => AMQPClass::Basic(basic::AMQPMethod::Qos(basic::Qos {
            prefetch_count: u16::from(byte() % 4),
            global: flag(0),
        })),
        9 => AMQPClass::Basic(basic::AMQPMethod::Consume(basic::Consume {
            queue: name.into(),
            consumer_tag: if flag(0) { "" } else { name }.into(),
            no_local: false,
            no_ack: flag(1),
            exclusive: flag(2) && flag(3),
            nowait: flag(4),
            arguments: table(),
        })),
        10 => AMQPClass::Basic(basic::AMQPMethod::Cancel(basic::Cancel {
            consumer_tag: name.into(),
            nowait: flag(0),
        })),
        11 => AMQPClass::Basic(basic::AMQPMethod::Get(basic::Get { queue: name.into(), no_ack: flag(0) })),
        12 | 13 => AMQPClass::Basic(basic::AMQPMethod::Ack(basic::Ack {
            delivery_tag: u64::from(byte() % 16),
            multiple: flag(0),
        })),
        14 => AMQPClass::Basic(basic::AMQPMethod::Nack(basic::Nack {
            delivery_tag: u64::from(byte() % 16),
            multiple: flag(0),
            requeue: flag(1),
        })),
        15 => AMQPClass::Basic(basic::AMQPMethod::Recover(basic::Recover { requeue: true })),
        16 => AMQPClass::Exchange(exchange::AMQPMethod::Bind(exchange::Bind {
            destination: if flag(0) { "amq.topic" } else { "amq.fanout" }.into(),
            source: if flag(1) { "amq.topic" } else { "amq.fanout" }.into(),
            routing_key: "#".into(),
            nowait: flag(2),
            arguments: table(),
        })),
        17 => {
            // A frame of any kind and any payload.
            let length = byte() % 64;
            let mut frame = vec![bits % 10, 0, 1, 0, 0, 0, length];
            frame.extend((0..length).map(|_| byte()));
            frame.push(if flag(7) { 0 } else { 0xce });
            return frame;
        }
        _ => {
            let publish = basic::Publish {
                exchange: if flag(0) { "" } else { "amq.topic" }.into(),
                routing_key: name.into(),
                mandatory: flag(1),
                immediate: false,
            };
            let body = vec![bits; usize::from(byte())];
            let mut properties = BasicProperties::default().with_delivery_mode(1 + u8::from(flag(2)));
            if flag(3) {
                properties = properties.with_expiration("0".into());
            }
            let header = AMQPContentHeader { class_id: 60, body_size: body.len() as u64, properties };
            let publish = AMQPClass::Basic(basic::AMQPMethod::Publish(publish));
            let mut bytes = encode(&AMQPFrame::Method(number, publish));
            bytes.extend(encode(&AMQPFrame::Header(number, header)));
            if !body.is_empty() {
                bytes.extend(encode(&AMQPFrame::Body(number, body)));
            }
            return bytes;
        }
    };
    encode(&AMQPFrame::Method(number, class))
}

/// Serves the bytes as one connection and checks that nothing of it is left.
fn serve(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let config = Config { refusal_delay: std::time::Duration::ZERO, ..Config::default() };
        let (_broker, handle) = Broker::new(config, Arc::new(Everybody));
        for name in QUEUES {
            handle.declare_queue(name, QueueOptions::default()).expect("a new queue");
        }
        let (client, server) = tokio::io::duplex(64 << 10);
        let (mut read, mut write) = tokio::io::split(client);
        let served = async {
            handle.serve(server, None, false).await;
        };
        let reads = async {
            let mut sink = Vec::new();
            let _ = read.read_to_end(&mut sink).await;
        };
        let writes = async {
            // The broker may close before everything is written.
            let _ = write.write_all(bytes).await;
            let _ = write.shutdown().await;
        };
        tokio::join!(served, reads, writes);
        assert_nothing_is_left(&handle);
    });
}

fn assert_nothing_is_left(handle: &Handle) {
    let stats = handle.stats();
    assert_eq!((stats.connections, stats.channels, stats.consumers), (0, 0, 0));
    assert_eq!(stats.unacknowledged, 0);
    let ours: usize = QUEUES.iter().filter(|it| handle.queue(it).is_some()).count();
    if stats.queues == ours {
        for name in QUEUES {
            handle.purge_queue(name);
        }
        let stats = handle.stats();
        assert_eq!((stats.ready, stats.memory), (0, 0));
    }
}
