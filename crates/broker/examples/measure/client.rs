//! An AMQP client that costs little: it reads frames in place and sends bytes that were encoded beforehand.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use amq_protocol::frame::{AMQPFrame, gen_frame};
use amq_protocol::protocol::{AMQPClass, basic, channel, confirm, connection, queue};

/// A blocking client that reads into one buffer.
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

/// A frame: type, class and method (or zeros), and payload.
pub(crate) struct Frame<'a> {
    pub(crate) kind: u8,
    pub(crate) id: (u16, u16),
    pub(crate) payload: &'a [u8],
}

fn frame(frame: &AMQPFrame) -> Vec<u8> {
    gen_frame::<Vec<u8>>(frame)(Vec::new().into()).unwrap().into_inner().0
}

fn method(channel: u16, method: AMQPClass) -> Vec<u8> {
    frame(&AMQPFrame::Method(channel, method))
}

impl Client {
    pub(crate) fn connect(address: &str, user: &str, password: &str, size: usize) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut client = Client { stream, buffer: vec![0; size], start: 0, end: 0 };
        client.send(b"AMQP\x00\x00\x09\x01");
        client.expect((10, 10));
        let start = connection::StartOk {
            client_properties: Default::default(),
            mechanism: "PLAIN".into(),
            response: format!("\0{user}\0{password}").into_bytes().into(),
            locale: "en_US".into(),
        };
        client.send(&method(0, AMQPClass::Connection(connection::AMQPMethod::StartOk(start))));
        client.expect((10, 30));
        let tune = connection::TuneOk { channel_max: 16, frame_max: 131_072, heartbeat: 0 };
        client.send(&method(0, AMQPClass::Connection(connection::AMQPMethod::TuneOk(tune))));
        let open = connection::Open { virtual_host: "/".into() };
        client.send(&method(0, AMQPClass::Connection(connection::AMQPMethod::Open(open))));
        client.expect((10, 41));
        client.send(&method(1, AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {}))));
        client.expect((20, 11));
        client
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The place and size of the next frame's payload, if it has been read whole.
    fn next_whole(&mut self) -> Option<(usize, usize)> {
        let have = self.end - self.start;
        if have < 8 {
            return None;
        }
        let head = &self.buffer[self.start..];
        let size = u32::from_be_bytes(head[3..7].try_into().unwrap()) as usize;
        if have < size + 8 {
            return None;
        }
        let from = self.start + 7;
        self.start += size + 8;
        Some((from, size))
    }

    fn make_room(&mut self) {
        if self.start > 0 && self.end > self.buffer.len() / 2 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }

    fn frame_at(&self, from: usize, size: usize) -> Frame<'_> {
        let payload = &self.buffer[from..from + size];
        let kind = self.buffer[from - 7];
        let word = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
        let id = if kind == 1 { (word(0), word(2)) } else { (0, 0) };
        Frame { kind, id, payload }
    }

    pub(crate) fn next(&mut self) -> Frame<'_> {
        loop {
            if let Some((from, size)) = self.next_whole() {
                return self.frame_at(from, size);
            }
            self.make_room();
            let read = self.stream.read(&mut self.buffer[self.end..]).unwrap();
            assert!(read > 0, "the broker closed the connection");
            self.end += read;
        }
    }

    /// Makes the socket non-blocking: from now on only [`Client::poll`] and [`Client::push`] may be called.
    pub(crate) fn never_wait(&self) {
        self.stream.set_nonblocking(true).unwrap();
    }

    /// The next frame, if it has arrived.
    pub(crate) fn poll(&mut self) -> Option<Frame<'_>> {
        if let Some((from, size)) = self.next_whole() {
            return Some(self.frame_at(from, size));
        }
        self.make_room();
        match self.stream.read(&mut self.buffer[self.end..]) {
            Ok(0) => panic!("the broker closed the connection"),
            Ok(read) => self.end += read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(error) => panic!("{error}"),
        }
        let (from, size) = self.next_whole()?;
        Some(self.frame_at(from, size))
    }

    /// Writes all of it, in a busy loop if it must.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) fn expect(&mut self, id: (u16, u16)) {
        let frame = self.next();
        assert_eq!(frame.id, id, "{:?}", String::from_utf8_lossy(frame.payload));
    }

    pub(crate) fn declare(&mut self, name: &str) {
        let declare = queue::Declare {
            queue: name.into(),
            passive: false,
            durable: false,
            exclusive: false,
            auto_delete: false,
            nowait: false,
            arguments: Default::default(),
        };
        self.send(&method(1, AMQPClass::Queue(queue::AMQPMethod::Declare(declare))));
        self.expect((50, 11));
    }

    pub(crate) fn delete(&mut self, name: &str) {
        let delete = queue::Delete { queue: name.into(), if_unused: false, if_empty: false, nowait: false };
        self.send(&method(1, AMQPClass::Queue(queue::AMQPMethod::Delete(delete))));
        self.expect((50, 41));
    }

    pub(crate) fn prefetch(&mut self, count: u16) {
        let qos = basic::Qos { prefetch_count: count, global: true };
        self.send(&method(1, AMQPClass::Basic(basic::AMQPMethod::Qos(qos))));
        self.expect((60, 11));
    }

    pub(crate) fn consume(&mut self, name: &str) {
        let consume = basic::Consume {
            queue: name.into(),
            consumer_tag: name.into(),
            no_local: false,
            no_ack: false,
            exclusive: false,
            nowait: false,
            arguments: Default::default(),
        };
        self.send(&method(1, AMQPClass::Basic(basic::AMQPMethod::Consume(consume))));
        // Deliveries of an earlier consumer may come before the reply.
        while self.next().id != (60, 21) {}
    }

    /// Acknowledges all deliveries up to this one.
    pub(crate) fn ack(&mut self, tag: u64) {
        self.send(&ack(tag));
    }

    /// The next delivery: its tag, and the first bytes of its body.
    pub(crate) fn delivery(&mut self) -> (u64, [u8; 8]) {
        let tag = loop {
            let frame = self.next();
            if frame.id == (60, 60) {
                break tag_of(frame.payload);
            }
        };
        loop {
            let frame = self.next();
            if frame.kind == 3 {
                return (tag, frame.payload[..8].try_into().unwrap());
            }
        }
    }

    /// Asks for confirms.
    pub(crate) fn select_confirms(&mut self) {
        let select = confirm::Select { nowait: false };
        self.send(&method(1, AMQPClass::Confirm(confirm::AMQPMethod::Select(select))));
        self.expect((85, 11));
    }
}

pub(crate) fn publish(queue: &str, body: &[u8]) -> Vec<u8> {
    let publish =
        basic::Publish { exchange: "".into(), routing_key: queue.into(), mandatory: false, immediate: false };
    let mut bytes = method(1, AMQPClass::Basic(basic::AMQPMethod::Publish(publish)));
    let header = amq_protocol::frame::AMQPContentHeader {
        class_id: 60,
        body_size: body.len() as u64,
        properties: Default::default(),
    };
    bytes.extend(frame(&AMQPFrame::Header(1, header)));
    bytes.extend(frame(&AMQPFrame::Body(1, body.to_vec())));
    bytes
}

/// An acknowledgement of all deliveries up to this one.
pub(crate) fn ack(tag: u64) -> [u8; 21] {
    let mut bytes = [1, 0, 1, 0, 0, 0, 13, 0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xce];
    bytes[11..19].copy_from_slice(&tag.to_be_bytes());
    bytes
}

/// The tag of a delivery, from its method's payload.
pub(crate) fn tag_of(payload: &[u8]) -> u64 {
    let name = usize::from(payload[4]);
    u64::from_be_bytes(payload[5 + name..][..8].try_into().unwrap())
}
