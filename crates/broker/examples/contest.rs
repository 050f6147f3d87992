//! Measures an AMQP broker from outside: raw sockets, messages encoded beforehand, so that the client is not what is
//! measured. The same client for ours and for RabbitMQ; `bench/broker` runs both.
//!
//! ```text
//! contest NAME ADDRESS USER PASSWORD PID...     the processes whose memory counts
//! ```
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a command line program for developers"
)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use amq_protocol::frame::{AMQPFrame, gen_frame};
use amq_protocol::protocol::{AMQPClass, basic, channel, confirm, connection, queue};

const BODY: usize = 1024;

/// A blocking client that reads into one buffer and looks at frames by hand.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

/// Type, class and method (or zeros), and the payload.
struct Seen<'a> {
    kind: u8,
    id: (u16, u16),
    payload: &'a [u8],
}

fn frame(frame: &AMQPFrame) -> Vec<u8> {
    gen_frame::<Vec<u8>>(frame)(Vec::new().into()).unwrap().into_inner().0
}

fn method(channel: u16, method: AMQPClass) -> Vec<u8> {
    frame(&AMQPFrame::Method(channel, method))
}

impl Client {
    fn connect(address: &str, user: &str, password: &str, size: usize) -> Client {
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

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    fn next(&mut self) -> Seen<'_> {
        loop {
            let have = self.end - self.start;
            if have >= 8 {
                let head = &self.buffer[self.start..];
                let size = u32::from_be_bytes(head[3..7].try_into().unwrap()) as usize;
                if have >= size + 8 {
                    let from = self.start + 7;
                    self.start += size + 8;
                    let payload = &self.buffer[from..from + size];
                    let kind = self.buffer[from - 7];
                    let id = match kind {
                        1 => (
                            u16::from_be_bytes([payload[0], payload[1]]),
                            u16::from_be_bytes([payload[2], payload[3]]),
                        ),
                        _ => (0, 0),
                    };
                    return Seen { kind, id, payload };
                }
            }
            if self.start > 0 && self.end > self.buffer.len() / 2 {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            }
            let read = self.stream.read(&mut self.buffer[self.end..]).unwrap();
            assert!(read > 0, "the broker closed the connection");
            self.end += read;
        }
    }

    fn expect(&mut self, id: (u16, u16)) {
        let seen = self.next();
        assert_eq!(seen.id, id, "{:?}", String::from_utf8_lossy(seen.payload));
    }

    fn declare(&mut self, name: &str) {
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

    fn delete(&mut self, name: &str) {
        let delete = queue::Delete { queue: name.into(), if_unused: false, if_empty: false, nowait: false };
        self.send(&method(1, AMQPClass::Queue(queue::AMQPMethod::Delete(delete))));
        self.expect((50, 41));
    }

    fn consume(&mut self, name: &str) {
        let qos = basic::Qos { prefetch_count: 2_000, global: false };
        self.send(&method(1, AMQPClass::Basic(basic::AMQPMethod::Qos(qos))));
        self.expect((60, 11));
        let consume = basic::Consume {
            queue: name.into(),
            consumer_tag: "c".into(),
            no_local: false,
            no_ack: false,
            exclusive: false,
            nowait: false,
            arguments: Default::default(),
        };
        self.send(&method(1, AMQPClass::Basic(basic::AMQPMethod::Consume(consume))));
        self.expect((60, 21));
    }

    fn ack(&mut self, tag: u64) {
        let mut bytes = [1, 0, 1, 0, 0, 0, 13, 0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xce];
        bytes[11..19].copy_from_slice(&tag.to_be_bytes());
        self.send(&bytes);
    }

    /// The next delivery's body, and its tag.
    fn delivery(&mut self) -> (u64, [u8; 8]) {
        let tag = loop {
            let seen = self.next();
            if seen.id == (60, 60) {
                let name = usize::from(seen.payload[4]);
                break u64::from_be_bytes(seen.payload[5 + name..][..8].try_into().unwrap());
            }
        };
        loop {
            let seen = self.next();
            if seen.kind == 3 {
                return (tag, seen.payload[..8].try_into().unwrap());
            }
        }
    }

    /// All publishes before this have reached the broker's queues.
    fn select_confirms(&mut self) {
        let select = confirm::Select { nowait: false };
        self.send(&method(1, AMQPClass::Confirm(confirm::AMQPMethod::Select(select))));
        self.expect((85, 11));
    }
}

fn publish(queue: &str, body: &[u8]) -> Vec<u8> {
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

struct Target {
    address: String,
    user: String,
    password: String,
    pids: Vec<u32>,
}

impl Target {
    fn connect(&self, size: usize) -> Client {
        Client::connect(&self.address, &self.user, &self.password, size)
    }

    /// Resident memory of the processes, in kB.
    fn memory(&self) -> f64 {
        let of = |pid: &u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find(|it| it.starts_with("VmRSS:")).unwrap_or("VmRSS: 0 kB");
            line.split_whitespace().nth(1).and_then(|it| it.parse::<f64>().ok()).unwrap_or(0.0)
        };
        self.pids.iter().map(of).sum()
    }

    /// Messages per second through one queue, one publisher to one consumer, for `length`.
    fn throughput(&self, name: &str, length: Duration) -> f64 {
        let mut consumer = self.connect(1 << 20);
        consumer.declare(name);
        consumer.consume(name);
        let stop = Arc::new(AtomicBool::new(false));
        let publisher = {
            let stop = stop.clone();
            let mut client = self.connect(4 << 10);
            let bytes = publish(name, &[7; BODY]).repeat(64);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    client.send(&bytes);
                }
            })
        };
        let warm = Instant::now();
        let mut count = 0u64;
        let mut begin = None;
        let rate = loop {
            let (tag, _) = consumer.delivery();
            if tag % 64 == 0 {
                consumer.ack(tag);
                let now = Instant::now();
                match begin {
                    None if now - warm > length / 4 => begin = Some(now),
                    Some(begin) if now - begin > length => break count as f64 / (now - begin).as_secs_f64(),
                    _ => {}
                }
            }
            count += u64::from(begin.is_some());
        };
        stop.store(true, Ordering::Relaxed);
        // The publisher may be blocked: the queue goes, and with it what blocks.
        drop(consumer);
        self.connect(4 << 10).delete(name);
        publisher.join().unwrap();
        rate
    }

    /// Microseconds from publish to delivery at `rate` per second: the median and the 99th percentile.
    fn latency(&self, rate: f64, length: Duration) -> (f64, f64) {
        let mut consumer = self.connect(1 << 20);
        consumer.declare("latency");
        consumer.consume("latency");
        let start = Instant::now();
        let count = (rate * length.as_secs_f64()) as u64;
        let mut client = self.connect(4 << 10);
        let publisher = std::thread::spawn(move || {
            let template = publish("latency", &[7; BODY]);
            let at = template.len() - 1 - BODY;
            let mut bytes = template;
            for number in 0..count {
                let due = Duration::from_secs_f64(number as f64 / rate);
                let mut now = start.elapsed();
                while now < due {
                    if due - now > Duration::from_micros(200) {
                        std::thread::sleep(due - now - Duration::from_micros(100));
                    } else {
                        std::thread::yield_now();
                    }
                    now = start.elapsed();
                }
                bytes[at..at + 8].copy_from_slice(&(now.as_nanos() as u64).to_be_bytes());
                client.send(&bytes);
            }
        });
        let mut micros = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let (tag, stamp) = consumer.delivery();
            let sent = Duration::from_nanos(u64::from_be_bytes(stamp));
            micros.push((start.elapsed() - sent).as_secs_f64() * 1e6);
            if tag % 16 == 0 {
                consumer.ack(tag);
            }
        }
        publisher.join().unwrap();
        consumer.delete("latency");
        micros.sort_by(f64::total_cmp);
        (micros[micros.len() / 2], micros[micros.len() * 99 / 100])
    }

    /// Publishes `count` messages round robin to the queues and waits until they are there. Messages per second.
    fn fill(&self, queues: &[String], count: usize, body: usize) -> f64 {
        let mut client = self.connect(1 << 16);
        client.select_confirms();
        let messages: Vec<Vec<u8>> = queues.iter().map(|it| publish(it, &vec![7; body])).collect();
        let begin = Instant::now();
        let mut batch = Vec::new();
        // Everything up to `whole` is confirmed, and these beyond it.
        let mut whole = 0u64;
        let mut beyond = std::collections::BTreeSet::new();
        for number in 0..count {
            batch.extend_from_slice(&messages[number % messages.len()]);
            if batch.len() > 32 << 10 || number + 1 == count {
                client.send(&batch);
                batch.clear();
                let wanted = (number + 1).saturating_sub(2_000) as u64;
                let wanted = if number + 1 == count { count as u64 } else { wanted };
                while whole + (beyond.len() as u64) < wanted {
                    let seen = client.next();
                    assert_eq!(seen.id, (60, 80), "a confirm");
                    let tag = u64::from_be_bytes(seen.payload[4..12].try_into().unwrap());
                    if seen.payload[12] != 0 {
                        whole = whole.max(tag);
                        beyond = beyond.split_off(&(whole + 1));
                    } else {
                        beyond.insert(tag);
                    }
                    while beyond.remove(&(whole + 1)) {
                        whole += 1;
                    }
                }
            }
        }
        count as f64 / begin.elapsed().as_secs_f64()
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, address, user, password, rest @ ..] = &arguments[..] else {
        panic!("contest NAME ADDRESS USER PASSWORD PID... [--latency-rate N] [--connections N] [--queues N]")
    };
    let option = |flag: &str| {
        let place = rest.iter().position(|it| it == flag)?;
        rest.get(place + 1)?.parse::<f64>().ok()
    };
    let target = Target {
        address: address.clone(),
        user: user.clone(),
        password: password.clone(),
        pids: rest.iter().map_while(|it| it.parse().ok()).collect(),
    };
    let say = |what: &str, value: String| println!("| {name} | {what} | {value} |");
    let idle = target.memory();
    say("idle memory, MB", format!("{:.1}", idle / 1024.0));
    let connections = option("--connections").unwrap_or(10_000.0) as usize;
    let before = target.memory();
    let open: Vec<Client> = (0..connections).map(|_| target.connect(512)).collect();
    let each = (target.memory() - before) / connections.max(1) as f64;
    say("an idle connection, kB", format!("{each:.1} of {connections}"));
    drop(open);
    // RabbitMQ takes minutes to declare ten thousand.
    let queues = option("--queues").unwrap_or(10_000.0) as usize;
    let names: Vec<String> = (0..queues).map(|it| format!("one.{it}")).collect();
    let mut client = target.connect(1 << 16);
    let before = target.memory();
    for name in &names {
        client.declare(name);
    }
    target.fill(&names, names.len(), 100);
    let each = target.memory() - before;
    say("queues with one message each, MB", format!("{:.1} of {queues}", each / 1024.0));
    for name in &names {
        client.delete(name);
    }
    let rates: Vec<f64> = (0..3).map(|_| target.throughput("throughput", Duration::from_secs(3))).collect();
    let best = rates.iter().copied().fold(0.0, f64::max);
    say("messages/s, 1 KiB, best of 3", format!("{best:.0}"));
    let rate = option("--latency-rate").unwrap_or(best / 10.0);
    let (median, high) = target.latency(rate, Duration::from_secs(4));
    say("latency at the latency rate, µs: p50 / p99", format!("{median:.0} / {high:.0} at {rate:.0}/s"));
    for queues in [10, queues] {
        let names: Vec<String> = (0..queues).map(|it| format!("many.{it}")).collect();
        let mut client = target.connect(1 << 16);
        for name in &names {
            client.declare(name);
        }
        let rate = target.fill(&names, 100_000, 100);
        if queues == 10 {
            say("publishes/s into 10 queues, confirmed, 100 bytes", format!("{rate:.0}"));
        } else {
            say("publishes/s into many queues", format!("{rate:.0} into {queues}"));
        }
        for name in &names {
            client.delete(name);
        }
    }
    let mut client = target.connect(1 << 16);
    client.declare("deep");
    let names = vec!["deep".to_owned()];
    let first = target.fill(&names, 100_000, 100);
    target.fill(&names, 800_000, 100);
    let last = target.fill(&names, 100_000, 100);
    say("publishes/s, first and tenth 100,000 of a million queued", format!("{first:.0} / {last:.0}"));
    let mut consumer = target.connect(1 << 20);
    consumer.consume("deep");
    let begin = Instant::now();
    for number in 1..=1_000_000u64 {
        let (tag, _) = consumer.delivery();
        if number % 64 == 0 {
            consumer.ack(tag);
        }
    }
    say("a million drained, messages/s", format!("{:.0}", 1e6 / begin.elapsed().as_secs_f64()));
    drop(consumer);
    client.delete("deep");
}
