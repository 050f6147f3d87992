//! Everything at once: three publishers, exchanges of every kind, five queues of any attributes, sinks that answer late
//! or refuse, a queue that is fed from its owner's store, clients that come and go, and time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;

use super::{SETTINGS, number_of};
use crate::core::*;
use crate::handle::{ExchangeKind, Overflow, Window};
use crate::message::{Message, Properties};
use crate::owner::{Demand, Fed, Want, Why};

const QUEUES: [&str; 5] = ["a", "b", "a.b", "c", "kept"];
/// The last queue has a sink and a backing, as those of a service have.
const KEPT: usize = 4;
const WINDOW: Window = Window { messages: 4, bytes: 200 };
const UNSETTLED: Window = Window { messages: 3, bytes: 1 << 20 };
const EXCHANGES: [(&str, ExchangeKind); 3] = [
    ("x.direct", ExchangeKind::Direct),
    ("x.topic", ExchangeKind::Topic),
    ("x.fanout", ExchangeKind::Fanout),
];
const KEYS: [&str; 7] = ["a", "b", "a.b", "c", "kept", "a.#", "*.b"];

/// Channels 0 and 1 publish, with confirms and without; 2 to 5 consume; the third publisher is in the process.
const CHANNELS: usize = 6;
const IN_PROCESS: usize = 2;

#[derive(Clone, Debug)]
enum Step {
    Publish(Publish),
    Bind { exchange: usize, target: Target, key: usize, bound: bool },
    Declare { queue: usize },
    Consume { channel: usize, queue: usize, prefetch: u16, no_ack: bool },
    Cancel { channel: usize },
    Get { channel: usize, queue: usize },
    Settle { channel: usize, which: usize, multiple: bool, verdict: u8 },
    CloseChannel { channel: usize },
    CloseConnection { connection: usize },
    Answer { which: usize, safe: bool },
    Feed,
    Purge { queue: usize },
    Wait { millis: u64 },
}

#[derive(Clone, Debug)]
struct Publish {
    publisher: usize,
    /// The default exchange beyond the others.
    exchange: usize,
    key: usize,
    size: usize,
    expiration: Option<u64>,
    persistent: bool,
    mandatory: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Queue(usize),
    Exchange(usize),
}

fn publish() -> impl Strategy<Value = Publish> {
    let expiration = prop::option::weighted(0.3, 0u64..20);
    (0usize..3, 0usize..6, 0usize..5, 0usize..40, expiration, any::<bool>(), any::<bool>()).prop_map(
        |(publisher, exchange, key, size, expiration, persistent, mandatory)| {
            let exchange = exchange.min(EXCHANGES.len());
            Publish { publisher, exchange, key, size, expiration, persistent, mandatory }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let channel = 2usize..CHANNELS;
    let queue = 0usize..QUEUES.len();
    let target = prop_oneof![
        4 => (0usize..QUEUES.len()).prop_map(Target::Queue),
        1 => (0usize..EXCHANGES.len()).prop_map(Target::Exchange),
    ];
    prop_oneof![
        16 => publish().prop_map(Step::Publish),
        4 => (0usize..EXCHANGES.len(), target, 0usize..KEYS.len(), prop::bool::weighted(0.8))
            .prop_map(|(exchange, target, key, bound)| Step::Bind { exchange, target, key, bound }),
        1 => queue.clone().prop_map(|queue| Step::Declare { queue }),
        5 => (channel.clone(), queue.clone(), 0u16..4, prop::bool::weighted(0.1))
            .prop_map(|(channel, queue, prefetch, no_ack)| Step::Consume { channel, queue, prefetch, no_ack }),
        1 => channel.clone().prop_map(|channel| Step::Cancel { channel }),
        2 => (channel.clone(), queue.clone()).prop_map(|(channel, queue)| Step::Get { channel, queue }),
        10 => (channel, 0usize..6, any::<bool>(), 0u8..4)
            .prop_map(|(channel, which, multiple, verdict)| Step::Settle { channel, which, multiple, verdict }),
        1 => (0usize..CHANNELS).prop_map(|channel| Step::CloseChannel { channel }),
        1 => (0usize..3).prop_map(|connection| Step::CloseConnection { connection }),
        6 => (0usize..8, prop::bool::weighted(0.8)).prop_map(|(which, safe)| Step::Answer { which, safe }),
        5 => Just(Step::Feed),
        1 => queue.prop_map(|queue| Step::Purge { queue }),
        5 => (0u64..15).prop_map(|millis| Step::Wait { millis }),
    ]
}

/// What one queue is like. The kept one is never deleted by itself: its owner would not have it.
fn attributes() -> impl Strategy<Value = Attributes> {
    let few = |most: usize| prop::option::weighted(0.3, 0..most);
    let limits = (few(4), few(80), any::<bool>(), prop::option::weighted(0.3, 0u32..3));
    let times = (prop::option::weighted(0.3, 0u64..15), prop::option::weighted(0.2, 1u64..30));
    (any::<bool>(), prop::bool::weighted(0.2), times, limits).prop_map(
        |(durable, auto_delete, (message_ttl, expires), (max_length, max_bytes, reject, delivery_limit))| {
            let overflow = if reject { Overflow::RejectPublish } else { Overflow::DropHead };
            Attributes {
                durable,
                auto_delete,
                exclusive: false,
                message_ttl,
                expires,
                max_length,
                max_bytes,
                overflow,
                delivery_limit,
            }
        },
    )
}

/// One message in one queue.
#[derive(Clone, Debug)]
struct Copy {
    number: u64,
    expires: u64,
    bytes: usize,
    weight: usize,
    redelivered: bool,
    returns: u32,
    token: u64,
}

struct Line {
    attributes: Attributes,
    sink: bool,
    alive: bool,
    /// Which of the queues of this name it is.
    life: u64,
    waiting: BTreeMap<u64, Copy>,
    next: u64,
    used: u64,
    /// Something was put into it by this operation: its length limit is looked at.
    pushed: bool,
}

struct Held {
    queue: usize,
    life: u64,
    position: u64,
    copy: Copy,
    consumer: Option<String>,
}

struct Taker {
    queue: usize,
    prefetch: u16,
    no_ack: bool,
}

struct Side {
    key: ChannelKey,
    held: BTreeMap<u64, Held>,
    takers: BTreeMap<String, Taker>,
}

/// One message at one sink.
struct Offered {
    queue: usize,
    life: u64,
    ticket: u64,
    number: u64,
    weight: usize,
    message: Arc<Message>,
    /// The publisher and its number for the message, if it wants an answer.
    reply: Option<(usize, u64)>,
}

/// The owner of the kept queue: its store, by token, and whether it was delivered before.
#[derive(Default)]
struct Owner {
    store: BTreeMap<u64, (Arc<Message>, bool)>,
    demand: Demand,
    fed_up_to: u64,
    tokens: u64,
    open: Option<u64>,
}

#[derive(Default)]
struct Sums {
    published: u64,
    unroutable: u64,
    refused: u64,
    put: u64,
    fed: u64,
    acknowledged: u64,
    dropped: u64,
    forgotten: u64,
}

/// What this operation must still be seen to do.
#[derive(Default)]
struct Due {
    offers: VecDeque<(usize, u64)>,
    answers: Vec<((usize, u64), bool)>,
    returns: Vec<u64>,
    acknowledged: Vec<u64>,
    dropped: Vec<u64>,
}

struct House {
    core: Core,
    now: u64,
    connections: Vec<ConnectionKey>,
    sides: Vec<Side>,
    lines: Vec<Line>,
    bindings: BTreeSet<(usize, Target, usize)>,
    offered: Vec<Offered>,
    /// Publishes that wait for sinks: how many, and whether one refused.
    open: BTreeMap<(usize, u64), (usize, bool)>,
    owner: Owner,
    sums: Sums,
    due: Due,
    /// Publishes so far: of the channel with confirms, and from inside the process.
    published: [u64; 3],
    numbers: u64,
    names: u64,
}

fn owned(queue: usize, sink: bool) -> Owned {
    Owned { sink, backing: (queue == KEPT).then_some((WINDOW, UNSETTLED)) }
}

impl House {
    fn new(kinds: Vec<(Attributes, bool)>) -> House {
        let mut core = Core::new(SETTINGS);
        for (name, kind) in EXCHANGES {
            let attributes = ExchangeAttributes { kind, durable: false, auto_delete: false, internal: false };
            core.declare_exchange(name, attributes).unwrap();
        }
        let mut lines = Vec::new();
        for (queue, (mut attributes, sink)) in kinds.into_iter().enumerate() {
            let sink = sink || queue == KEPT;
            if queue == KEPT {
                attributes.auto_delete = false;
                attributes.expires = None;
            }
            core.declare_owned(QUEUES[queue], attributes.clone(), owned(queue, sink)).unwrap();
            let waiting = BTreeMap::new();
            lines.push(Line {
                attributes,
                sink,
                alive: true,
                life: 0,
                waiting,
                next: 0,
                used: 0,
                pushed: false,
            });
        }
        core.run();
        let connections: Vec<_> = (0..3).map(|_| core.open_connection(false)).collect();
        let mut house = House {
            core,
            now: 0,
            connections,
            sides: Vec::new(),
            lines,
            bindings: BTreeSet::new(),
            offered: Vec::new(),
            open: BTreeMap::new(),
            owner: Owner::default(),
            sums: Sums::default(),
            due: Due::default(),
            published: [0; 3],
            numbers: 0,
            names: 0,
        };
        for channel in 0..CHANNELS {
            let side = house.open(channel);
            house.sides.push(side);
        }
        house
    }

    fn open(&mut self, channel: usize) -> Side {
        let key = self.core.open_channel(self.connections[channel / 2], channel as u16 % 2 + 1);
        if channel == 0 {
            self.core.select_confirms(key);
            self.published[0] = 0;
            self.open.retain(|it, _| it.0 != 0);
            // Whoever is gone hears no answer.
            self.offered.iter_mut().for_each(|it| it.reply = it.reply.filter(|it| it.0 != 0));
        }
        Side { key, held: BTreeMap::new(), takers: BTreeMap::new() }
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Publish(publish) => self.publish(publish),
            Step::Bind { exchange, target, key, bound } => self.bind(*exchange, *target, *key, *bound),
            Step::Declare { queue } => self.declare(*queue),
            Step::Consume { channel, queue, prefetch, no_ack } => {
                self.names += 1;
                let tag = format!("c{}", self.names);
                let side = &mut self.sides[*channel];
                self.core.set_prefetch(side.key, *prefetch, true);
                let how = Consume {
                    queue: QUEUES[*queue],
                    tag: tag.as_str().into(),
                    no_ack: *no_ack,
                    exclusive: false,
                };
                let line = &mut self.lines[*queue];
                let consumed = self.core.consume(side.key, how);
                assert_eq!(consumed, if line.alive { Ok(()) } else { Err(Error::NoQueue) });
                if line.alive {
                    line.used = self.now;
                    side.takers.insert(tag, Taker { queue: *queue, prefetch: *prefetch, no_ack: *no_ack });
                }
            }
            Step::Cancel { channel } => {
                let side = &mut self.sides[*channel];
                if let Some((tag, taker)) = side.takers.pop_first() {
                    self.core.cancel(side.key, &tag);
                    self.left(taker.queue);
                }
            }
            Step::Get { channel, queue } => self.get(*channel, *queue),
            Step::Settle { channel, which, multiple, verdict } => {
                self.settle(*channel, *which, *multiple, *verdict);
            }
            Step::CloseChannel { channel } => {
                self.core.close_channel(self.sides[*channel].key);
                self.lose(&[*channel]);
                self.follow();
                self.sides[*channel] = self.open(*channel);
            }
            Step::CloseConnection { connection } => {
                let channels = [2 * connection, 2 * connection + 1];
                self.core.close_connection(self.connections[*connection]);
                self.lose(&channels);
                self.follow();
                self.connections[*connection] = self.core.open_connection(false);
                for channel in channels {
                    self.sides[channel] = self.open(channel);
                }
            }
            Step::Answer { which, safe } => self.answer(*which, *safe),
            Step::Feed => self.feed(),
            Step::Purge { queue } => {
                let line = &mut self.lines[*queue];
                let purged = self.core.purge_queue(QUEUES[*queue], None);
                assert_eq!(
                    purged,
                    if line.alive { Ok(line.waiting.len() as u32) } else { Err(Error::NoQueue) }
                );
                for copy in std::mem::take(&mut line.waiting).into_values() {
                    self.sums.dropped += 1;
                    self.due.dropped.extend((*queue == KEPT).then_some(copy.token));
                }
            }
            Step::Wait { millis } => {
                self.now += millis;
                self.core.set_now(self.now);
                self.core.tick();
                for queue in 0..QUEUES.len() {
                    let line = &self.lines[queue];
                    let unused = self.consumers(queue) == 0
                        && line.attributes.expires.is_some_and(|it| self.now - line.used >= it);
                    if line.alive && unused {
                        self.die(queue);
                    }
                }
            }
        }
        self.core.run();
        self.follow();
        self.end_of_operation();
        self.check();
    }

    fn consumers(&self, queue: usize) -> usize {
        self.sides.iter().flat_map(|it| it.takers.values()).filter(|it| it.queue == queue).count()
    }

    fn declare(&mut self, queue: usize) {
        let line = &mut self.lines[queue];
        if line.alive {
            self.core.inspect_queue(QUEUES[queue], self.connections[0]).unwrap();
        } else {
            let owned = owned(queue, line.sink);
            self.core.declare_owned(QUEUES[queue], line.attributes.clone(), owned).unwrap();
            line.alive = true;
            line.life += 1;
        }
        line.used = self.now;
    }

    fn bind(&mut self, exchange: usize, target: Target, key: usize, bound: bool) {
        let (source, pattern) = (EXCHANGES[exchange].0, KEYS[key]);
        let done = match (target, bound) {
            (Target::Queue(it), true) => self.core.bind_queue(QUEUES[it], source, pattern),
            (Target::Queue(it), false) => self.core.unbind_queue(QUEUES[it], source, pattern),
            (Target::Exchange(it), true) => self.core.bind_exchange(EXCHANGES[it].0, source, pattern),
            (Target::Exchange(it), false) => self.core.unbind_exchange(EXCHANGES[it].0, source, pattern),
        };
        let there = !matches!(target, Target::Queue(it) if !self.lines[it].alive);
        assert_eq!(done, if there { Ok(()) } else { Err(Error::NoQueue) });
        if there && bound {
            self.bindings.insert((exchange, target, key));
        } else {
            self.bindings.remove(&(exchange, target, key));
        }
    }

    /// By the definition, without tables and tries.
    fn route(&self, exchange: usize, key: &str, seen: &mut BTreeSet<usize>, queues: &mut BTreeSet<usize>) {
        if !seen.insert(exchange) {
            return;
        }
        for (source, target, pattern) in &self.bindings {
            let pattern = KEYS[*pattern];
            let matches = match EXCHANGES[exchange].1 {
                ExchangeKind::Direct => pattern == key,
                ExchangeKind::Fanout => true,
                ExchangeKind::Topic => match pattern {
                    "a.#" => key == "a" || key.starts_with("a."),
                    "*.b" => key.ends_with(".b") && key.matches('.').count() == 1,
                    pattern => pattern == key,
                },
            };
            if *source == exchange && matches {
                match target {
                    Target::Queue(it) => drop(queues.insert(*it)),
                    Target::Exchange(it) => self.route(*it, key, seen, queues),
                }
            }
        }
    }

    fn publish(&mut self, it: &Publish) {
        self.numbers += 1;
        let (number, key) = (self.numbers, KEYS[it.key]);
        let mut queues = BTreeSet::new();
        let exchange = match EXCHANGES.get(it.exchange) {
            Some((name, _)) => {
                self.route(it.exchange, key, &mut BTreeSet::new(), &mut queues);
                *name
            }
            None => {
                queues.extend(QUEUES.iter().position(|it| *it == key));
                ""
            }
        };
        queues.retain(|it| self.lines[*it].alive);
        let mut properties = Properties::default().with_delivery_mode(if it.persistent { 2 } else { 1 });
        if let Some(expiration) = it.expiration {
            properties = properties.with_expiration(expiration.to_string().into());
        }
        let body = format!("{number:>0$}", 6 + it.size);
        let message = Arc::new(Message::new(exchange, key, &properties, body).unwrap());
        self.sums.published += 1;
        let reply = (it.publisher != 1).then(|| {
            self.published[it.publisher] += 1;
            (it.publisher, self.published[it.publisher])
        });
        let from = match it.publisher {
            IN_PROCESS => Publisher::Local(self.published[IN_PROCESS]),
            channel => Publisher::Channel(self.sides[channel].key),
        };
        if queues.is_empty() {
            self.sums.unroutable += 1;
            self.due.returns.extend((it.mandatory && it.publisher != IN_PROCESS).then_some(number));
        }
        let (mut waiting, mut refused) = (0, 0);
        // The core asks in the order of its keys, which for queues made anew is not that of their names.
        for queue in &queues {
            let line = &mut self.lines[*queue];
            let size = message.body().len();
            let bytes: usize = line.waiting.values().map(|it| it.bytes).sum();
            let full = line.attributes.max_length.is_some_and(|it| line.waiting.len() >= it)
                || line.attributes.max_bytes.is_some_and(|it| bytes + size > it);
            let could_be_lost = reply.is_some() && line.attributes.durable && it.persistent;
            if line.sink {
                waiting += 1;
                self.due.offers.push_back((*queue, number));
                self.offered.push(Offered {
                    queue: *queue,
                    life: line.life,
                    ticket: 0,
                    number,
                    weight: message.weight(),
                    message: message.clone(),
                    reply,
                });
            } else if could_be_lost || (full && line.attributes.overflow == Overflow::RejectPublish) {
                refused += 1;
            } else {
                self.sums.put += 1;
                self.put(*queue, &message, number, 0, false);
            }
        }
        self.sums.refused += refused;
        if let Some(reply) = reply {
            if waiting > 0 {
                self.open.insert(reply, (waiting, refused > 0));
            } else {
                self.due.answers.push((reply, refused == 0));
            }
        }
        let routed = self.core.publish(from, message, it.mandatory);
        assert_eq!(routed, Ok(queues.len()));
    }

    fn put(&mut self, queue: usize, message: &Message, number: u64, token: u64, redelivered: bool) {
        let line = &mut self.lines[queue];
        let life = [line.attributes.message_ttl, message.expiration()].into_iter().flatten().min();
        let copy = Copy {
            number,
            expires: life.map_or(u64::MAX, |it| self.now + it),
            bytes: message.body().len(),
            weight: message.weight(),
            redelivered,
            returns: 0,
            token,
        };
        line.waiting.insert(line.next, copy);
        line.next += 1;
        line.pushed |= queue != KEPT;
    }

    fn answer(&mut self, which: usize, safe: bool) {
        if self.offered.is_empty() {
            return;
        }
        let offered = self.offered.remove(which % self.offered.len());
        self.sums.refused += u64::from(!safe);
        if let Some(reply) = offered.reply {
            let open = self.open.get_mut(&reply).unwrap();
            open.0 -= 1;
            open.1 |= !safe;
            if open.0 == 0 {
                self.due.answers.push((reply, !open.1));
                self.open.remove(&reply);
            }
        }
        if safe && offered.queue == KEPT {
            self.owner.tokens += 1;
            self.owner.store.insert(self.owner.tokens, (offered.message, false));
        }
        self.core.settle_tickets(&[offered.ticket], safe);
    }

    /// The owner acts on what it was told, some time after.
    fn feed(&mut self) {
        let mut batch = Vec::new();
        let mut taken = Vec::new();
        for (token, (message, redelivered)) in self.owner.store.range(self.owner.fed_up_to + 1..) {
            if !self.owner.demand.take(message.body().len()) {
                break;
            }
            taken.push((*token, message.clone(), *redelivered));
            batch.push(Fed { token: *token, message: (**message).clone(), redelivered: *redelivered });
        }
        if batch.is_empty() {
            return;
        }
        self.owner.fed_up_to = taken.last().unwrap().0;
        let window = self.owner.demand.window();
        let fresh = self.owner.open == Some(window);
        if fresh {
            self.sums.fed += taken.len() as u64;
            for (token, message, redelivered) in taken {
                self.put(KEPT, &message, number_of(&message), token, redelivered);
            }
        } else {
            self.owner.demand.close();
        }
        let fed = self.core.feed(QUEUES[KEPT], window, batch);
        assert_eq!(fed, if fresh { Ok(()) } else { Err(Error::Stale) });
    }

    fn get(&mut self, channel: usize, queue: usize) {
        let got = self.core.get(self.sides[channel].key, QUEUES[queue], false);
        if !self.lines[queue].alive {
            assert!(matches!(got, Err(Error::NoQueue)));
            return;
        }
        self.lines[queue].used = self.now;
        match got.unwrap() {
            None => assert!(self.lines[queue].waiting.is_empty()),
            Some(got) => {
                let (position, copy) = self.take(queue, &got.message, got.redelivered);
                assert_eq!(got.remaining as usize, self.lines[queue].waiting.len());
                let life = self.lines[queue].life;
                let held = Held { queue, life, position, copy, consumer: None };
                self.sides[channel].held.insert(got.tag, held);
            }
        }
    }

    fn settle(&mut self, channel: usize, which: usize, multiple: bool, verdict: u8) {
        let side = &mut self.sides[channel];
        let Some(tag) = side.held.keys().nth(which).copied() else {
            let nothing = self.core.settle_delivery(side.key, 1 << 40, multiple, Verdict::Acknowledge);
            assert_eq!(nothing, Err(Error::UnknownTag));
            return;
        };
        let verdict =
            [Verdict::Acknowledge, Verdict::Acknowledge, Verdict::Requeue, Verdict::Drop][verdict as usize];
        let all: Vec<u64> =
            side.held.keys().copied().filter(|it| *it == tag || (multiple && *it < tag)).collect();
        let key = side.key;
        for tag in all {
            let held = self.sides[channel].held.remove(&tag).unwrap();
            let kept = held.queue == KEPT;
            match verdict {
                Verdict::Acknowledge => {
                    self.sums.acknowledged += 1;
                    self.due.acknowledged.extend(kept.then_some(held.copy.token));
                }
                Verdict::Drop => {
                    self.sums.dropped += 1;
                    self.due.dropped.extend(kept.then_some(held.copy.token));
                }
                Verdict::Requeue => self.give_back(held, true),
            }
        }
        self.core.settle_delivery(key, tag, multiple, verdict).unwrap();
    }

    fn give_back(&mut self, mut held: Held, by_choice: bool) {
        let line = &mut self.lines[held.queue];
        held.copy.redelivered = true;
        held.copy.returns += u32::from(by_choice);
        let limit = line.attributes.delivery_limit.unwrap_or(SETTINGS.delivery_limit);
        if !line.alive || line.life != held.life {
            self.sums.dropped += 1;
        } else if held.copy.returns > limit {
            self.sums.dropped += 1;
            self.due.dropped.extend((held.queue == KEPT).then_some(held.copy.token));
        } else {
            assert!(line.waiting.insert(held.position, held.copy).is_none());
        }
    }

    /// Channels that are gone: first all their consumers, then what they held.
    fn lose(&mut self, channels: &[usize]) {
        for channel in channels {
            for taker in std::mem::take(&mut self.sides[*channel].takers).into_values() {
                self.left(taker.queue);
            }
        }
        for channel in channels {
            for held in std::mem::take(&mut self.sides[*channel].held).into_values() {
                self.give_back(held, false);
            }
        }
    }

    fn left(&mut self, queue: usize) {
        self.lines[queue].used = self.now;
        if self.lines[queue].alive && self.lines[queue].attributes.auto_delete && self.consumers(queue) == 0 {
            self.die(queue);
        }
    }

    fn die(&mut self, queue: usize) {
        let line = &mut self.lines[queue];
        line.alive = false;
        self.sums.dropped += line.waiting.len() as u64;
        line.waiting.clear();
        self.bindings.retain(|it| it.1 != Target::Queue(queue));
    }

    fn drop_expired(&mut self, queue: usize) {
        let line = &mut self.lines[queue];
        while let Some(head) = line.waiting.first_entry()
            && head.get().expires < self.now
        {
            let copy = head.remove();
            self.sums.dropped += 1;
            self.due.dropped.extend((queue == KEPT).then_some(copy.token));
        }
    }

    /// A message leaves its queue.
    fn take(&mut self, queue: usize, message: &Message, redelivered: bool) -> (u64, Copy) {
        self.drop_expired(queue);
        let (position, copy) = self.lines[queue].waiting.pop_first().expect("something waits");
        assert_eq!(copy.number, number_of(message), "not the oldest that waits in {}", QUEUES[queue]);
        assert_eq!(copy.redelivered, redelivered, "redelivered flag of {}", copy.number);
        (position, copy)
    }

    /// Reads the effects as clients, sinks and the owner would.
    fn follow(&mut self) {
        for effect in std::mem::take(&mut self.core.effects) {
            match effect {
                Effect::Send(connection, output) => {
                    let at = self.connections.iter().position(|it| *it == connection).expect("to the living");
                    self.hear(at, output);
                }
                Effect::Offer { ticket, message, .. } => {
                    let number = number_of(&message);
                    let place = self.due.offers.iter().position(|it| it.1 == number).expect("matches");
                    let (queue, _) = self.due.offers.remove(place).unwrap();
                    let mut offers = self.offered.iter_mut();
                    let it =
                        offers.find(|it| (it.queue, it.number, it.ticket) == (queue, number, 0)).unwrap();
                    it.ticket = ticket;
                }
                Effect::Confirmed { local, safe } => self.hear_answer((IN_PROCESS, local), safe),
                Effect::Want { window, messages, bytes, .. } => {
                    if self.owner.demand.grant(Want { window, messages, bytes }) {
                        assert_eq!(self.owner.open, None, "a window within a window");
                        self.owner.open = Some(window);
                        self.owner.fed_up_to = 0;
                    }
                    assert_eq!(self.owner.open, Some(window));
                }
                Effect::Ended { window, unacknowledged, .. } => {
                    assert_eq!(self.owner.open.take(), Some(window));
                    self.drop_expired(KEPT);
                    let forgotten = std::mem::take(&mut self.lines[KEPT].waiting);
                    self.sums.forgotten += forgotten.len() as u64;
                    let again: Vec<u64> =
                        forgotten.values().filter(|it| it.redelivered).map(|it| it.token).collect();
                    assert_eq!(unacknowledged, again);
                    for token in again {
                        self.owner.store.get_mut(&token).expect("the owner's").1 = true;
                    }
                }
                Effect::Acknowledged { token, .. } => {
                    settle_token(&mut self.due.acknowledged, &mut self.owner, token)
                }
                Effect::Dropped { token, why, .. } => {
                    assert_ne!(why, Why::Overflow, "a window has no length limit");
                    self.drop_expired(KEPT);
                    settle_token(&mut self.due.dropped, &mut self.owner, token);
                }
                Effect::Deleted(_) | Effect::Discard(_) => {}
                Effect::Resume(_) => panic!("nobody was paused"),
            }
        }
    }

    fn hear(&mut self, connection: usize, output: Output) {
        match output {
            Output::Deliver { channel, consumer, tag, redelivered, message } => {
                let at = 2 * connection + usize::from(channel) - 1;
                let taker = self.sides[at].takers.get(&*consumer).expect("to a consumer");
                let (queue, no_ack) = (taker.queue, taker.no_ack);
                let (position, copy) = self.take(queue, &message, redelivered);
                if no_ack {
                    self.sums.acknowledged += 1;
                    self.due.acknowledged.extend((queue == KEPT).then_some(copy.token));
                } else {
                    let life = self.lines[queue].life;
                    let held = Held { queue, life, position, copy, consumer: Some(consumer.to_string()) };
                    assert!(self.sides[at].held.insert(tag, held).is_none());
                }
            }
            Output::Return { message, .. } => {
                let number = number_of(&message);
                let place = self.due.returns.iter().position(|it| *it == number).expect("to be returned");
                self.due.returns.remove(place);
            }
            Output::Confirm { channel, first, last, safe, whole } => {
                assert_eq!((connection, channel, first), (0, 1, last));
                assert!(self.due.returns.is_empty(), "a return comes before its confirm");
                let below = self.open.keys().any(|it| it.0 == 0 && it.1 < first);
                assert_eq!(whole, !below, "{first} would speak for others");
                self.hear_answer((0, first), safe);
            }
            other => panic!("not asked for: {other:?}"),
        }
    }

    fn hear_answer(&mut self, reply: (usize, u64), safe: bool) {
        let place = self.due.answers.iter().position(|it| it.0 == reply).expect("one answer to each publish");
        assert_eq!(self.due.answers.remove(place).1, safe, "the answer to {reply:?}");
    }

    fn end_of_operation(&mut self) {
        for queue in 0..QUEUES.len() {
            self.drop_expired(queue);
            let line = &mut self.lines[queue];
            if std::mem::take(&mut line.pushed) {
                while line.attributes.max_length.is_some_and(|it| line.waiting.len() > it)
                    || line
                        .attributes
                        .max_bytes
                        .is_some_and(|it| line.waiting.values().map(|it| it.bytes).sum::<usize>() > it)
                {
                    line.waiting.pop_first();
                    self.sums.dropped += 1;
                }
            }
            self.drop_expired(queue);
        }
        // What was written is no memory any more; the third world looks at that more closely.
        for connection in self.connections.clone() {
            self.core.written(connection, usize::MAX);
        }
        self.follow();
        let due = &self.due;
        assert!(due.offers.is_empty() && due.answers.is_empty() && due.returns.is_empty(), "not done");
        assert!(due.acknowledged.is_empty() && due.dropped.is_empty(), "the owner was not told");
    }

    fn check(&self) {
        let waiting: usize = self.lines.iter().map(|it| it.waiting.len()).sum();
        let held = || self.sides.iter().flat_map(|it| it.held.values());
        let counts = self.core.counts;
        assert_eq!((counts.ready, counts.unacknowledged), (waiting, held().count()));
        let sums = &self.sums;
        assert_eq!(
            (counts.published, counts.unroutable, counts.refused, counts.fed),
            (sums.published, sums.unroutable, sums.refused, sums.fed)
        );
        assert_eq!(
            (counts.acknowledged, counts.dropped, counts.forgotten),
            (sums.acknowledged, sums.dropped, sums.forgotten)
        );
        let gone = sums.acknowledged + sums.dropped + sums.forgotten;
        assert_eq!(sums.put + sums.fed, gone + (waiting + held().count()) as u64, "the counters add up");
        let alive = |queue: usize, life: u64| self.lines[queue].alive && self.lines[queue].life == life;
        let memory: usize = self
            .lines
            .iter()
            .flat_map(|it| it.waiting.values())
            .map(|it| it.weight)
            .sum::<usize>()
            + held().filter(|it| alive(it.queue, it.life)).map(|it| it.copy.weight).sum::<usize>()
            + self.offered.iter().filter(|it| alive(it.queue, it.life)).map(|it| it.weight).sum::<usize>();
        assert_eq!(self.core.sizes().memory, memory);
        self.check_consumers();
        let kept = &self.lines[KEPT];
        let out = held().filter(|it| it.queue == KEPT).count();
        assert!(kept.waiting.len() <= WINDOW.messages + UNSETTLED.messages);
        if self.consumers(KEPT) > 0 {
            assert!(self.owner.open.is_some(), "a consumer without a window");
        } else if out == 0 {
            assert_eq!((self.owner.open, kept.waiting.len()), (None, 0), "held without a consumer");
        }
    }

    /// Nothing waits that somebody could have.
    fn check_consumers(&self) {
        for side in &self.sides {
            for (tag, taker) in &side.takers {
                let out = side.held.values().filter(|it| it.consumer.as_ref() == Some(tag)).count();
                let limit = usize::from(taker.prefetch);
                assert!(taker.no_ack || limit == 0 || out <= limit);
                let of_queue = self.sides.iter().flat_map(|it| it.held.values());
                let of_queue = of_queue.filter(|it| it.queue == taker.queue).count();
                let may = taker.queue != KEPT || of_queue < UNSETTLED.messages;
                let free = (taker.no_ack || limit == 0 || out < limit) && may;
                assert!(!free || self.lines[taker.queue].waiting.is_empty(), "{tag} could have taken one");
            }
        }
    }

    /// Everything is answered, fed, consumed; nothing is left.
    fn finish(&mut self) {
        while !self.offered.is_empty() {
            self.apply(&Step::Answer { which: 0, safe: true });
        }
        for connection in 0..3 {
            self.apply(&Step::CloseConnection { connection });
        }
        for queue in 0..QUEUES.len() {
            if self.lines[queue].alive {
                self.apply(&Step::Consume { channel: 2, queue, prefetch: 1, no_ack: false });
            }
        }
        self.apply(&Step::Feed);
        while !self.sides[2].held.is_empty() || !self.owner.store.is_empty() {
            let before = (self.sides[2].held.len(), self.owner.store.len());
            self.apply(&Step::Settle { channel: 2, which: 0, multiple: true, verdict: 0 });
            self.apply(&Step::Feed);
            assert!(before != (0, self.owner.store.len()), "never fed: {:?}", self.owner.store.keys());
        }
        let sizes = self.core.sizes();
        assert_eq!((self.core.counts.ready, self.core.counts.unacknowledged, sizes.memory), (0, 0, 0));
        assert!(self.open.is_empty() && self.core.local_open.is_empty());
        assert_eq!(self.core.tickets.len(), 0);
    }
}

/// The owner's store lets go of a token that it was told of, once.
fn settle_token(due: &mut Vec<u64>, owner: &mut Owner, token: u64) {
    let place = due.iter().position(|it| *it == token).expect("a token that was settled");
    due.remove(place);
    assert!(owner.store.remove(&token).is_some(), "{token} was answered twice");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 384, ..ProptestConfig::default() })]

    /// See the parent's head: all of it.
    #[test]
    fn everything_at_once_does_what_the_model_says(
        kinds in prop::collection::vec((attributes(), prop::bool::weighted(0.3)), QUEUES.len()),
        steps in prop::collection::vec(step(), 0..160),
    ) {
        let mut house = House::new(kinds);
        for step in &steps {
            house.apply(step);
        }
        house.finish();
    }
}
