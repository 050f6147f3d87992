//! Measures an AMQP broker through raw sockets with messages encoded beforehand, so that the client costs little. It is
//! the same client for Farcall's broker and for RabbitMQ; `bench/broker` runs both and says what the measurements mean.
//!
//! ```text
//! measure ADDRESS USER PASSWORD PID[,PID...] [--connections N] [--queues N] [--deep N] [--latency-rate N]
//! ```
//!
//! Prints one measurement per line: `name value`.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a command line program for developers"
)]

mod client;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use client::{Client, ack, publish, tag_of};

const BODY: usize = 1024;
/// Size of the messages in measurements of many queues or of a deep one.
const SMALL_BODY: usize = 100;
/// How many messages one measurement of many queues or of a deep one publishes or consumes.
const BATCH: usize = 100_000;

struct Target {
    address: String,
    user: String,
    password: String,
    pids: Vec<u32>,
}

fn say(name: &str, value: f64) {
    println!("{name} {value:.3}");
}

fn per_second(count: usize, since: Instant) -> f64 {
    count as f64 / since.elapsed().as_secs_f64()
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

    fn declare(&self, prefix: &str, count: usize) -> Vec<String> {
        let names: Vec<String> = (0..count).map(|it| format!("{prefix}.{it}")).collect();
        let mut client = self.connect(1 << 16);
        names.iter().for_each(|it| client.declare(it));
        names
    }

    fn delete(&self, names: &[String]) {
        let mut client = self.connect(1 << 16);
        names.iter().for_each(|it| client.delete(it));
    }

    /// Messages per second through one queue, one publisher to one consumer, for `length`.
    fn throughput(&self, name: &str, length: Duration) -> f64 {
        let mut consumer = self.connect(1 << 20);
        consumer.declare(name);
        consumer.prefetch(2_000);
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
        let mut count = 0;
        let mut begin = None;
        let rate = loop {
            let (tag, _) = consumer.delivery();
            if tag % 64 == 0 {
                consumer.ack(tag);
                let now = Instant::now();
                match begin {
                    None if now - warm > length / 4 => begin = Some(now),
                    Some(begin) if now - begin > length => break per_second(count, begin),
                    _ => {}
                }
            }
            count += usize::from(begin.is_some());
        };
        stop.store(true, Ordering::Relaxed);
        // The publisher may be blocked: deleting the queue unblocks it.
        drop(consumer);
        self.connect(4 << 10).delete(name);
        publisher.join().unwrap();
        rate
    }

    /// Microseconds from publish to delivery at `rate` per second: the median and the 99th percentile. One thread that
    /// never sleeps sends and receives, so that waking a thread is not measured.
    fn latency(&self, rate: f64, length: Duration) -> (f64, f64) {
        let mut consumer = self.connect(1 << 20);
        consumer.declare("latency");
        consumer.prefetch(2_000);
        consumer.consume("latency");
        let mut publisher = self.connect(4 << 10);
        consumer.never_wait();
        publisher.never_wait();
        let mut bytes = publish("latency", &[7; BODY]);
        let at = bytes.len() - 1 - BODY;
        let count = (rate * length.as_secs_f64()) as usize;
        let mut micros = Vec::with_capacity(count);
        let (mut sent, mut tag, mut settled) = (0, 0, 0);
        let start = Instant::now();
        while micros.len() < count {
            let now = start.elapsed();
            if sent < count && now >= Duration::from_secs_f64(sent as f64 / rate) {
                bytes[at..at + 8].copy_from_slice(&(now.as_nanos() as u64).to_be_bytes());
                publisher.push(&bytes);
                sent += 1;
            }
            while let Some(seen) = consumer.poll() {
                if seen.id == (60, 60) {
                    tag = tag_of(seen.payload);
                } else if seen.kind == 3 {
                    let stamp = u64::from_be_bytes(seen.payload[..8].try_into().unwrap());
                    micros.push((start.elapsed() - Duration::from_nanos(stamp)).as_secs_f64() * 1e6);
                }
            }
            if tag >= settled + 16 {
                consumer.push(&ack(tag));
                settled = tag;
            }
        }
        drop(consumer);
        self.connect(4 << 10).delete("latency");
        micros.sort_by(f64::total_cmp);
        (micros[micros.len() / 2], micros[micros.len() * 99 / 100])
    }

    /// Publishes `count` messages round robin to the queues and waits for their confirms. Returns messages per second.
    fn fill(&self, queues: &[String], count: usize) -> f64 {
        let mut client = self.connect(1 << 16);
        client.select_confirms();
        let messages: Vec<Vec<u8>> = queues.iter().map(|it| publish(it, &[7; SMALL_BODY])).collect();
        let begin = Instant::now();
        let mut batch = Vec::new();
        // Everything up to `whole` is confirmed, and `beyond` it these.
        let mut whole = 0u64;
        let mut beyond = BTreeSet::new();
        for number in 0..count {
            batch.extend_from_slice(&messages[number % messages.len()]);
            if batch.len() > 32 << 10 || number + 1 == count {
                client.send(&batch);
                batch.clear();
                let wanted = if number + 1 == count { count } else { (number + 1).saturating_sub(2_000) };
                while whole + (beyond.len() as u64) < wanted as u64 {
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
        per_second(count, begin)
    }

    /// Consumes `count` messages that wait in the queues. Returns messages per second, from the first delivery on.
    fn drain(&self, consumer: &mut Client, count: usize) -> f64 {
        let mut begin = None;
        for number in 1..=count {
            let (tag, _) = consumer.delivery();
            let _ = begin.get_or_insert_with(Instant::now);
            if number % 64 == 0 || number == count {
                consumer.ack(tag);
            }
        }
        per_second(count, begin.unwrap())
    }

    /// Publishes into `count` queues, and consumes from as many. Returns messages per second of each.
    fn many(&self, count: usize) -> (f64, f64) {
        let names = self.declare("many", count);
        // The first round is not measured: it allocates what each queue needs once.
        self.fill(&names, count);
        let published = (0..3).map(|_| self.fill(&names, BATCH)).fold(0.0, f64::max);
        // All consumers are there before the first message, so that the whole path of a message is measured.
        self.delete(&names);
        let names = self.declare("many", count);
        let mut consumer = self.connect(1 << 20);
        consumer.prefetch(2_000);
        names.iter().for_each(|it| consumer.consume(it));
        let publisher = {
            let mut client = self.connect(1 << 16);
            let messages: Vec<Vec<u8>> = names.iter().map(|it| publish(it, &[7; SMALL_BODY])).collect();
            std::thread::spawn(move || {
                let mut batch = Vec::new();
                for number in 0..3 * BATCH {
                    batch.extend_from_slice(&messages[number % messages.len()]);
                    if batch.len() > 32 << 10 || number + 1 == 3 * BATCH {
                        client.send(&batch);
                        batch.clear();
                    }
                }
                client
            })
        };
        let consumed = self.drain(&mut consumer, 3 * BATCH);
        drop(publisher.join().unwrap());
        drop(consumer);
        self.delete(&names);
        (published, consumed)
    }

    /// Publishes until `deep` messages wait in one queue and consumes them all. Prints messages per second at the start
    /// and the end of each.
    fn deep(&self, deep: usize) {
        let names = self.declare("deep", 1);
        say("publish_first", self.fill(&names, BATCH));
        self.fill(&names, deep.saturating_sub(2 * BATCH));
        say("publish_deep", self.fill(&names, BATCH));
        let mut consumer = self.connect(1 << 20);
        consumer.prefetch(2_000);
        consumer.consume(&names[0]);
        say("consume_deep", self.drain(&mut consumer, BATCH));
        self.drain(&mut consumer, deep.saturating_sub(2 * BATCH));
        say("consume_last", self.drain(&mut consumer, BATCH));
        drop(consumer);
        self.delete(&names);
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, user, password, pids, rest @ ..] = &arguments[..] else {
        panic!("measure ADDRESS USER PASSWORD PID[,PID...] [--connections N] [--queues N] [--deep N] ...")
    };
    let option = |flag: &str, otherwise: f64| {
        let index = rest.iter().position(|it| it == flag);
        index.and_then(|it| rest.get(it + 1)).map_or(otherwise, |it| it.parse().unwrap())
    };
    let target = Target {
        address: address.clone(),
        user: user.clone(),
        password: password.clone(),
        pids: pids.split(',').map(|it| it.parse().unwrap()).collect(),
    };
    // Memory first: the other measurements leave some behind.
    say("idle", target.memory() / 1024.0);
    let connections = option("--connections", 10_000.0) as usize;
    let before = target.memory();
    let open: Vec<Client> = (0..connections).map(|_| target.connect(512)).collect();
    say("connections", connections as f64);
    say("connection", (target.memory() - before) / connections.max(1) as f64);
    drop(open);
    let queues = option("--queues", 10_000.0) as usize;
    let before = target.memory();
    let names = target.declare("one", queues);
    target.fill(&names, queues);
    say("queues", queues as f64);
    say("queue_memory", (target.memory() - before) / 1024.0);
    target.delete(&names);
    let rates = (0..3).map(|_| target.throughput("throughput", Duration::from_secs(3)));
    let best = rates.fold(0.0, f64::max);
    say("throughput", best);
    let rate = option("--latency-rate", best / 10.0);
    for (name, rate) in [("low", rate), ("tenth", best / 10.0)] {
        let (median, high) = target.latency(rate, Duration::from_secs(4));
        say(&format!("{name}_rate"), rate);
        say(&format!("{name}_median"), median);
        say(&format!("{name}_high"), high);
    }
    for (name, count) in [("few", 10), ("many", queues)] {
        let (published, consumed) = target.many(count);
        say(&format!("publish_{name}"), published);
        say(&format!("consume_{name}"), consumed);
    }
    let deep = option("--deep", 1e6) as usize;
    say("depth", deep as f64);
    target.deep(deep);
}
