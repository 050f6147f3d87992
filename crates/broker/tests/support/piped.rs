//! A client over a pipe inside the process. Without sockets, one thread decides in which order the tasks run.

use std::sync::Arc;

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, gen_frame, parse_frame};
use amq_protocol::protocol::{AMQPClass, basic, channel, connection};
use amq_protocol::types::FieldTable;
use broker::{Broker, Config, Handle};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::{Permissions, in_time};

/// A broker without listeners.
pub fn broker(config: Config) -> Handle {
    let (broker, handle) = Broker::new(config, Arc::new(Permissions::default()));
    tokio::spawn(broker.run(Vec::new(), std::future::pending()));
    handle
}

pub fn encode(frame: &AMQPFrame) -> Vec<u8> {
    gen_frame::<Vec<u8>>(frame)(Vec::new().into()).unwrap().into_inner().0
}

pub fn method(channel: u16, method: AMQPClass) -> Vec<u8> {
    encode(&AMQPFrame::Method(channel, method))
}

pub fn publish(key: &str, body: &[u8]) -> Vec<u8> {
    let publish =
        basic::Publish { exchange: "".into(), routing_key: key.into(), mandatory: false, immediate: false };
    let mut bytes = method(1, AMQPClass::Basic(basic::AMQPMethod::Publish(publish)));
    let header =
        AMQPContentHeader { class_id: 60, body_size: body.len() as u64, properties: Default::default() };
    bytes.extend(encode(&AMQPFrame::Header(1, header)));
    for piece in body.chunks(100_000) {
        bytes.extend(encode(&AMQPFrame::Body(1, piece.to_vec())));
    }
    bytes
}

pub struct Client {
    pub stream: DuplexStream,
    read: Vec<u8>,
}

impl Client {
    /// A connection with channel 1, over a pipe of `size` bytes each way.
    pub async fn open(handle: &Handle, size: usize, heartbeat: u16) -> Client {
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
        let tune = connection::TuneOk { channel_max: 0, frame_max: 0, heartbeat };
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

    pub async fn frame(&mut self) -> AMQPFrame {
        self.frame_or_end().await.expect("the connection goes on")
    }

    /// `None` at the end of the connection.
    pub async fn frame_or_end(&mut self) -> Option<AMQPFrame> {
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

    pub async fn consume(&mut self, queue: &str) {
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

    /// Publishes one message to a queue that it consumes, and waits until it is delivered: three frames.
    pub async fn round_trip(&mut self, queue: &str) {
        self.stream.write_all(&publish(queue, b"m")).await.unwrap();
        for _ in 0..3 {
            self.frame().await;
        }
    }
}
