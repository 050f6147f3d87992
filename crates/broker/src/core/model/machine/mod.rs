//! Everything at once: three publishers, exchanges of every kind, five queues of any attributes, sinks that answer late
//! or refuse, a queue that is fed from its owner's store, clients that come and go, and time.

mod publishing;
mod settling;
mod steps;
mod watching;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;

use super::{SETTINGS, number_of};
use crate::backing::{Credit, CreditBalance, DropReason, StoredMessage};
use crate::core::*;
use crate::declaration::{ExchangeKind, Overflow};
use crate::message::{Message, Properties};

use steps::*;

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
    credit: CreditBalance,
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

struct Machine {
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

fn storage(queue: usize, sink: bool) -> Storage {
    Storage { sink, backing: (queue == KEPT).then_some((WINDOW, UNSETTLED)) }
}

impl Machine {
    fn new(kinds: Vec<(Attributes, bool)>) -> Machine {
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
            core.declare_for_embedder(QUEUES[queue], attributes.clone(), storage(queue, sink)).unwrap();
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
        let mut machine = Machine {
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
            let side = machine.open(channel);
            machine.sides.push(side);
        }
        machine
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
            Step::PublishReply { which, safe } => self.answer(*which, *safe),
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
            let storage = storage(queue, line.sink);
            self.core.declare_for_embedder(QUEUES[queue], line.attributes.clone(), storage).unwrap();
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
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 384, ..ProptestConfig::default() })]

    /// See the parent's head: all of it.
    #[test]
    fn everything_at_once_does_what_the_model_says(
        kinds in prop::collection::vec((attributes(), prop::bool::weighted(0.3)), QUEUES.len()),
        steps in prop::collection::vec(step(), 0..160),
    ) {
        let mut machine = Machine::new(kinds);
        for step in &steps {
            machine.apply(step);
        }
        machine.finish();
    }
}
