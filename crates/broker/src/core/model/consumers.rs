//! A model of two queues, two clients with two channels each, and one publisher: deliveries, settling, loss, flow, and what
//! is not yet written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use proptest::prelude::*;

use super::{ConsumerModel, number_of};
use crate::core::*;
use crate::message::{Message, Properties};

const QUEUES: [&str; 2] = ["a", "b"];

#[derive(Clone, Debug)]
enum Step {
    Publish { queue: usize },
    Consume { channel: usize, queue: usize, prefetch: u16, no_ack: bool },
    Cancel { channel: usize, consumer: usize },
    Get { channel: usize, queue: usize },
    Settle { channel: usize, which: usize, multiple: bool, verdict: u8 },
    Recover { channel: usize },
    Flow { channel: usize, flowing: bool },
    CloseChannel { channel: usize },
    CloseConnection { connection: usize },
    Written { connection: usize, bytes: usize },
    Purge { queue: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let channel = 0usize..4;
    let queue = 0usize..2;
    prop_oneof![
        8 => queue.clone().prop_map(|queue| Step::Publish { queue }),
        3 => (channel.clone(), queue.clone(), 0u16..4, prop::bool::weighted(0.1))
            .prop_map(|(channel, queue, prefetch, no_ack)| Step::Consume { channel, queue, prefetch, no_ack }),
        1 => (channel.clone(), 0usize..4).prop_map(|(channel, consumer)| Step::Cancel { channel, consumer }),
        1 => (channel.clone(), queue.clone()).prop_map(|(channel, queue)| Step::Get { channel, queue }),
        8 => (channel.clone(), 0usize..6, any::<bool>(), 0u8..4)
            .prop_map(|(channel, which, multiple, verdict)| Step::Settle { channel, which, multiple, verdict }),
        1 => channel.clone().prop_map(|channel| Step::Recover { channel }),
        1 => (channel.clone(), any::<bool>()).prop_map(|(channel, flowing)| Step::Flow { channel, flowing }),
        1 => channel.prop_map(|channel| Step::CloseChannel { channel }),
        1 => (0usize..2).prop_map(|connection| Step::CloseConnection { connection }),
        4 => (0usize..2, 0usize..3_000).prop_map(|(connection, bytes)| Step::Written { connection, bytes }),
        1 => queue.prop_map(|queue| Step::Purge { queue }),
    ]
}

struct Held {
    queue: usize,
    number: u64,
    consumer: Option<String>,
}

struct ChannelModel {
    key: ChannelKey,
    held: BTreeMap<u64, Held>,
    consumers: BTreeMap<String, ConsumerModel>,
    flowing: bool,
}

struct World {
    core: Core,
    connections: Vec<ConnectionKey>,
    channels: Vec<ChannelModel>,
    waiting: [BTreeSet<u64>; 2],
    seen: BTreeSet<u64>,
    weights: HashMap<u64, usize>,
    /// Sent and not yet written, per connection. What needs no acknowledgement counts as memory.
    in_flight: [Vec<(usize, bool)>; 2],
    next: u64,
    names: u64,
}

fn open(core: &mut Core, connection: ConnectionKey, number: u16) -> ChannelModel {
    let key = core.open_channel(connection, number);
    ChannelModel { key, held: BTreeMap::new(), consumers: BTreeMap::new(), flowing: true }
}

const SETTINGS: Settings = Settings { output_window: 2_000, ..super::SETTINGS };

impl World {
    fn new() -> World {
        let mut core = Core::new(SETTINGS);
        let connections: Vec<_> = (0..2).map(|_| core.open_connection(false)).collect();
        for queue in QUEUES {
            core.declare_queue(queue, connections[0], Attributes::default()).unwrap();
        }
        let channels = (0..4).map(|it| open(&mut core, connections[it / 2], it as u16 % 2 + 1)).collect();
        World {
            core,
            connections,
            channels,
            waiting: Default::default(),
            seen: BTreeSet::new(),
            weights: HashMap::new(),
            in_flight: Default::default(),
            next: 0,
            names: 0,
        }
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Publish { queue } => {
                let body = format!("{:>1$}", self.next, 8 + (self.next as usize * 37) % 400);
                let message = Message::new("", QUEUES[queue], &Properties::default(), body).unwrap();
                self.weights.insert(self.next, message.weight());
                self.waiting[queue].insert(self.next);
                self.next += 1;
                self.core
                    .publish(Publisher::Channel(self.channels[0].key), Arc::new(message), false)
                    .unwrap();
            }
            Step::Consume { channel, queue, prefetch, no_ack } => {
                self.names += 1;
                let tag = format!("c{}", self.names);
                let channel_model = &mut self.channels[channel];
                self.core.set_prefetch(channel_model.key, prefetch, true);
                let how =
                    Consume { queue: QUEUES[queue], tag: tag.as_str().into(), no_ack, exclusive: false };
                self.core.consume(channel_model.key, how).unwrap();
                channel_model.consumers.insert(tag, ConsumerModel { queue, prefetch, no_ack });
            }
            Step::Cancel { channel, consumer } => {
                let channel_model = &mut self.channels[channel];
                if let Some(tag) = channel_model.consumers.keys().nth(consumer).cloned() {
                    self.core.cancel(channel_model.key, &tag);
                    channel_model.consumers.remove(&tag);
                }
            }
            Step::Get { channel, queue } => {
                let got = self.core.get(self.channels[channel].key, QUEUES[queue], false).unwrap();
                match got {
                    None => assert!(self.waiting[queue].is_empty()),
                    Some(got) => {
                        self.take(queue, &got.message, got.redelivered);
                        let held = Held { queue, number: number_of(&got.message), consumer: None };
                        self.channels[channel].held.insert(got.tag, held);
                        assert_eq!(got.remaining as usize, self.waiting[queue].len());
                    }
                }
            }
            Step::Settle { channel, which, multiple, verdict } => {
                self.settle(channel, which, multiple, verdict)
            }
            Step::Recover { channel } => {
                let channel_model = &mut self.channels[channel];
                for (_, held) in std::mem::take(&mut channel_model.held) {
                    assert!(self.waiting[held.queue].insert(held.number));
                }
                self.core.recover(channel_model.key);
            }
            Step::Flow { channel, flowing } => {
                self.channels[channel].flowing = flowing;
                self.core.set_flow(self.channels[channel].key, flowing);
            }
            Step::CloseChannel { channel } => {
                self.lose_channel(channel);
                self.core.close_channel(self.channels[channel].key);
                self.check_actions();
                self.reopen(channel);
            }
            Step::CloseConnection { connection } => {
                self.lose_channel(2 * connection);
                self.lose_channel(2 * connection + 1);
                self.core.close_connection(self.connections[connection]);
                self.in_flight[connection].clear();
                self.check_actions();
                self.connections[connection] = self.core.open_connection(false);
                self.reopen(2 * connection);
                self.reopen(2 * connection + 1);
            }
            Step::Written { connection, bytes } => {
                let mut left = bytes;
                let flight = &mut self.in_flight[connection];
                while left > 0
                    && let Some((first, _)) = flight.first_mut()
                {
                    let part = left.min(*first);
                    *first -= part;
                    left -= part;
                    if *first == 0 {
                        flight.remove(0);
                    }
                }
                self.core.written(self.connections[connection], bytes);
            }
            Step::Purge { queue } => {
                let purged = self.core.purge_queue(QUEUES[queue], None).unwrap();
                assert_eq!(purged as usize, self.waiting[queue].len());
                self.waiting[queue].clear();
            }
        }
        self.core.run();
        self.check_actions();
        self.check();
    }

    fn settle(&mut self, channel: usize, which: usize, multiple: bool, verdict: u8) {
        let channel_model = &mut self.channels[channel];
        let Some(tag) = channel_model.held.keys().nth(which).copied() else {
            assert_eq!(
                self.core.settle_delivery(channel_model.key, 1 << 40, multiple, Verdict::Drop),
                Err(Error::UnknownTag)
            );
            return;
        };
        let verdict =
            [Verdict::Acknowledge, Verdict::Acknowledge, Verdict::Requeue, Verdict::Drop][verdict as usize];
        let tags: Vec<u64> =
            channel_model.held.keys().copied().filter(|it| *it == tag || (multiple && *it < tag)).collect();
        for tag in tags {
            let held = channel_model.held.remove(&tag).unwrap();
            if verdict == Verdict::Requeue {
                assert!(self.waiting[held.queue].insert(held.number));
            }
        }
        self.core.settle_delivery(channel_model.key, tag, multiple, verdict).unwrap();
    }

    fn lose_channel(&mut self, channel: usize) {
        let channel_model = &mut self.channels[channel];
        channel_model.consumers.clear();
        for (_, held) in std::mem::take(&mut channel_model.held) {
            assert!(self.waiting[held.queue].insert(held.number));
        }
    }

    fn reopen(&mut self, channel: usize) {
        self.channels[channel] = open(&mut self.core, self.connections[channel / 2], channel as u16 % 2 + 1);
    }

    /// A message leaves its queue.
    fn take(&mut self, queue: usize, message: &Message, redelivered: bool) {
        let number = number_of(message);
        assert_eq!(self.waiting[queue].first(), Some(&number), "not the lowest that waits");
        self.waiting[queue].pop_first();
        assert_eq!(!self.seen.insert(number), redelivered, "redelivered flag of {number}");
    }

    /// Takes the actions as clients would.
    fn check_actions(&mut self) {
        for effect in std::mem::take(&mut self.core.actions) {
            let Action::Send(connection, Output::Deliver { channel, consumer, tag, redelivered, message }) =
                effect
            else {
                continue;
            };
            let connection =
                self.connections.iter().position(|it| *it == connection).expect("to an open connection");
            let channel_model = 2 * connection + usize::from(channel) - 1;
            let consumer_model =
                self.channels[channel_model].consumers.get(&*consumer).expect("to a consumer");
            let (queue, no_ack) = (consumer_model.queue, consumer_model.no_ack);
            self.take(queue, &message, redelivered);
            self.in_flight[connection].push((message.weight(), no_ack));
            if !no_ack {
                let held = Held { queue, number: number_of(&message), consumer: Some(consumer.to_string()) };
                assert!(self.channels[channel_model].held.insert(tag, held).is_none());
            }
        }
    }

    fn check(&self) {
        let waiting: usize = self.waiting.iter().map(BTreeSet::len).sum();
        let held: usize = self.channels.iter().map(|it| it.held.len()).sum();
        assert_eq!((self.core.counts.ready, self.core.counts.unacknowledged), (waiting, held));
        let waiting = self.waiting.iter().flatten();
        let held = self.channels.iter().flat_map(|it| it.held.values().map(|it| &it.number));
        let known: usize = waiting.chain(held).map(|it| self.weights[it]).sum();
        let flying: usize = self.in_flight.iter().flatten().filter(|it| it.1).map(|it| it.0).sum();
        assert_eq!(self.core.sizes().memory, known + flying);
        for (index, channel_model) in self.channels.iter().enumerate() {
            let flying: usize = self.in_flight[index / 2].iter().map(|it| it.0).sum();
            for (tag, consumer_model) in &channel_model.consumers {
                let outstanding =
                    channel_model.held.values().filter(|it| it.consumer.as_ref() == Some(tag)).count();
                let limit = usize::from(consumer_model.prefetch);
                let free = consumer_model.no_ack || limit == 0 || outstanding < limit;
                assert!(consumer_model.no_ack || limit == 0 || outstanding <= limit);
                let can = channel_model.flowing && free && flying < SETTINGS.output_window;
                assert!(!can || self.waiting[consumer_model.queue].is_empty(), "{tag} could have taken one");
            }
        }
    }
}

proptest! {
    /// Fails in the ways 2 to 5 and 9 of the list in the parent module.
    #[test]
    fn the_core_does_what_the_model_says(steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World::new();
        for step in &steps {
            world.apply(step);
        }
        for channel in 0..4 {
            world.apply(&Step::CloseChannel { channel });
        }
        for connection in 0..2 {
            world.apply(&Step::Written { connection, bytes: usize::MAX });
        }
        let left: Vec<Vec<u64>> = world.waiting.iter().map(|it| it.iter().copied().collect()).collect();
        for (queue, left) in left.into_iter().enumerate() {
            for _ in left {
                world.apply(&Step::Get { channel: 0, queue });
                world.apply(&Step::Settle { channel: 0, which: 0, multiple: false, verdict: 0 });
            }
        }
        let sizes = world.core.sizes();
        prop_assert_eq!((world.core.counts.ready, world.core.counts.unacknowledged, sizes.memory), (0, 0, 0));
    }
}
