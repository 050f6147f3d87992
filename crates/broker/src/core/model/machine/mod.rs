//! A model of everything together: three publishers, exchanges of every kind, five queues with any attributes, sinks that
//! reply late or refuse, a queue that is fed from a store, clients that connect and disconnect, and time.

mod checking;
mod publishing;
mod settling;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::{ConsumerModel, SETTINGS, number_of};
use crate::backing::{Credit, CreditBalance, DropReason, StoredMessage};
use crate::core::*;
use crate::declaration::{ExchangeKind, Overflow};
use crate::message::{Message, Properties};

use steps::*;

/// One message in one queue.
#[derive(Clone, Debug)]
struct QueuedCopy {
    number: u64,
    expires: u64,
    bytes: usize,
    weight: usize,
    redelivered: bool,
    returns: u32,
    token: u64,
}

/// What one queue must be like.
struct QueueModel {
    /// Of its latest incarnation.
    key: QueueKey,
    attributes: Attributes,
    sink: bool,
    alive: bool,
    /// How often a queue of this name was declared before.
    incarnation: u64,
    waiting: BTreeMap<u64, QueuedCopy>,
    next: u64,
    used: u64,
    /// Whether this operation put something into it, so that its length limit applies.
    pushed: bool,
}

/// A delivery that a channel has not settled.
struct Held {
    queue: usize,
    incarnation: u64,
    position: u64,
    copy: QueuedCopy,
    consumer: Option<String>,
}

struct ChannelModel {
    key: ChannelKey,
    held: BTreeMap<u64, Held>,
    consumers: BTreeMap<String, ConsumerModel>,
}

/// One message at one sink.
struct Offered {
    queue: usize,
    incarnation: u64,
    ticket: u64,
    number: u64,
    weight: usize,
    message: Arc<Message>,
    /// The publisher and its number for the message, if it wants a confirm.
    reply: Option<(usize, u64)>,
}

/// The embedder of the kept queue: its store by token, and whether each message was delivered before.
#[derive(Default)]
struct EmbedderModel {
    store: BTreeMap<u64, (Arc<Message>, bool)>,
    credit: CreditBalance,
    fed_up_to: u64,
    tokens: u64,
    open: Option<u64>,
}

#[derive(Default)]
struct ExpectedCounts {
    published: u64,
    unroutable: u64,
    refused: u64,
    put: u64,
    fed: u64,
    acknowledged: u64,
    dropped: u64,
    forgotten: u64,
}

/// The actions that this operation must still cause.
#[derive(Default)]
struct Expected {
    offers: Vec<(usize, u64)>,
    answers: Vec<((usize, u64), bool)>,
    returns: Vec<u64>,
    acknowledged: Vec<u64>,
    dropped: Vec<u64>,
}

struct Machine {
    core: Core,
    now: u64,
    connections: Vec<ConnectionKey>,
    channels: Vec<ChannelModel>,
    queues: Vec<QueueModel>,
    bindings: BTreeSet<(usize, Target, usize)>,
    offered: Vec<Offered>,
    /// Publishes that wait for sinks: how many, and whether one refused.
    open: BTreeMap<(usize, u64), (usize, bool)>,
    embedder: EmbedderModel,
    expected_counts: ExpectedCounts,
    expected: Expected,
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
        let mut queues = Vec::new();
        for (queue, (mut attributes, sink)) in kinds.into_iter().enumerate() {
            let sink = sink || queue == KEPT;
            if queue == KEPT {
                attributes.auto_delete = false;
                attributes.expires = None;
            }
            let key =
                core.declare_for_embedder(QUEUES[queue], attributes.clone(), storage(queue, sink)).unwrap();
            let waiting = BTreeMap::new();
            queues.push(QueueModel {
                key,
                attributes,
                sink,
                alive: true,
                incarnation: 0,
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
            channels: Vec::new(),
            queues,
            bindings: BTreeSet::new(),
            offered: Vec::new(),
            open: BTreeMap::new(),
            embedder: EmbedderModel::default(),
            expected_counts: ExpectedCounts::default(),
            expected: Expected::default(),
            published: [0; 3],
            numbers: 0,
            names: 0,
        };
        for channel in 0..CHANNELS {
            let channel_model = machine.open(channel);
            machine.channels.push(channel_model);
        }
        machine
    }

    fn open(&mut self, channel: usize) -> ChannelModel {
        let key = self.core.open_channel(self.connections[channel / 2], channel as u16 % 2 + 1);
        if channel == 0 {
            self.core.select_confirms(key);
            self.published[0] = 0;
            self.open.retain(|it, _| it.0 != 0);
            // A closed channel gets no confirm.
            self.offered.iter_mut().for_each(|it| it.reply = it.reply.filter(|it| it.0 != 0));
        }
        ChannelModel { key, held: BTreeMap::new(), consumers: BTreeMap::new() }
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Publish(publish) => self.publish(publish),
            Step::Bind { exchange, target, key, bound } => self.bind(*exchange, *target, *key, *bound),
            Step::Declare { queue } => self.declare(*queue),
            Step::Consume { channel, queue, prefetch, no_ack } => {
                self.names += 1;
                let tag = format!("c{}", self.names);
                let channel_model = &mut self.channels[*channel];
                self.core.set_prefetch(channel_model.key, *prefetch, true);
                let how = Consume {
                    queue: QUEUES[*queue],
                    tag: tag.as_str().into(),
                    no_ack: *no_ack,
                    exclusive: false,
                };
                let model = &mut self.queues[*queue];
                let consumed = self.core.consume(channel_model.key, how);
                assert_eq!(consumed, if model.alive { Ok(()) } else { Err(Error::NoQueue) });
                if model.alive {
                    model.used = self.now;
                    channel_model
                        .consumers
                        .insert(tag, ConsumerModel { queue: *queue, prefetch: *prefetch, no_ack: *no_ack });
                }
            }
            Step::Cancel { channel } => {
                let channel_model = &mut self.channels[*channel];
                if let Some((tag, consumer_model)) = channel_model.consumers.pop_first() {
                    self.core.cancel(channel_model.key, &tag);
                    self.consumer_left(consumer_model.queue);
                }
            }
            Step::Get { channel, queue } => self.get(*channel, *queue),
            Step::Settle { channel, which, multiple, verdict } => {
                self.settle(*channel, *which, *multiple, *verdict);
            }
            Step::CloseChannel { channel } => {
                self.core.close_channel(self.channels[*channel].key);
                self.lose_channels(&[*channel]);
                self.check_actions();
                self.channels[*channel] = self.open(*channel);
            }
            Step::CloseConnection { connection } => {
                let channels = [2 * connection, 2 * connection + 1];
                self.core.close_connection(self.connections[*connection]);
                self.lose_channels(&channels);
                self.check_actions();
                self.connections[*connection] = self.core.open_connection(false);
                for channel in channels {
                    self.channels[channel] = self.open(channel);
                }
            }
            Step::PublishReply { which, safe } => self.answer(*which, *safe),
            Step::Feed => self.feed(),
            Step::Purge { queue } => {
                let model = &mut self.queues[*queue];
                let purged = self.core.purge_queue(QUEUES[*queue], None);
                assert_eq!(
                    purged,
                    if model.alive { Ok(model.waiting.len() as u32) } else { Err(Error::NoQueue) }
                );
                for copy in std::mem::take(&mut model.waiting).into_values() {
                    self.expected_counts.dropped += 1;
                    self.expected.dropped.extend((*queue == KEPT).then_some(copy.token));
                }
            }
            Step::Wait { millis } => {
                self.now += millis;
                self.core.set_now(self.now);
                self.core.tick();
                for queue in 0..QUEUES.len() {
                    let model = &self.queues[queue];
                    let unused = self.consumers(queue) == 0
                        && model.attributes.expires.is_some_and(|it| self.now - model.used >= it);
                    if model.alive && unused {
                        self.delete_queue(queue);
                    }
                }
            }
        }
        self.core.run();
        self.check_actions();
        self.end_of_operation();
        self.check();
    }

    fn consumers(&self, queue: usize) -> usize {
        self.channels.iter().flat_map(|it| it.consumers.values()).filter(|it| it.queue == queue).count()
    }

    fn declare(&mut self, queue: usize) {
        let model = &mut self.queues[queue];
        if model.alive {
            self.core.inspect_queue(QUEUES[queue], self.connections[0]).unwrap();
        } else {
            let storage = storage(queue, model.sink);
            model.key =
                self.core.declare_for_embedder(QUEUES[queue], model.attributes.clone(), storage).unwrap();
            model.alive = true;
            model.incarnation += 1;
        }
        model.used = self.now;
    }

    fn bind(&mut self, exchange: usize, target: Target, key: usize, bound: bool) {
        let (source, pattern) = (EXCHANGES[exchange].0, KEYS[key]);
        let done = match (target, bound) {
            (Target::Queue(it), true) => self.core.bind_queue(QUEUES[it], source, pattern),
            (Target::Queue(it), false) => self.core.unbind_queue(QUEUES[it], source, pattern),
            (Target::Exchange(it), true) => self.core.bind_exchange(EXCHANGES[it].0, source, pattern),
            (Target::Exchange(it), false) => self.core.unbind_exchange(EXCHANGES[it].0, source, pattern),
        };
        let there = !matches!(target, Target::Queue(it) if !self.queues[it].alive);
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

    /// Fails in each of the ways in the list of the parent module.
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

/// A queue that is declared again has a higher key. So the core offers a message to two sinks in another order than that of
/// [`QUEUES`]; the expiry of one sink's queue must release the memory of its own offer.
#[test]
fn a_sink_that_is_declared_again_expires_before_it_replies() {
    let mut kinds = vec![(Attributes::default(), false); QUEUES.len()];
    kinds[0] = (Attributes { expires: Some(13), ..Attributes::default() }, true);
    kinds[2].1 = true;
    let bind = |queue| Step::Bind { exchange: 2, target: Target::Queue(queue), key: 0, bound: true };
    let publish = Publish {
        publisher: 0,
        exchange: 2,
        key: 0,
        size: 0,
        expiration: None,
        persistent: false,
        mandatory: false,
    };
    let steps = [
        Step::Wait { millis: 13 },
        bind(2),
        Step::Declare { queue: 0 },
        bind(0),
        Step::Publish(publish),
        Step::Wait { millis: 13 },
    ];
    let mut machine = Machine::new(kinds);
    for step in &steps {
        machine.apply(step);
    }
    machine.finish();
}
