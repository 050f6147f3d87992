//! The random steps of a run, and their arguments.

use proptest::prelude::*;

use crate::core::*;
use crate::declaration::{ExchangeKind, Overflow, Window};

pub(super) const QUEUES: [&str; 5] = ["a", "b", "a.b", "c", "kept"];
/// The last queue has a sink and a backing, as those of a service have.
pub(super) const KEPT: usize = 4;
pub(super) const WINDOW: Window = Window { messages: 4, bytes: 200 };
pub(super) const UNSETTLED: Window = Window { messages: 3, bytes: 1 << 20 };
pub(super) const EXCHANGES: [(&str, ExchangeKind); 3] = [
    ("x.direct", ExchangeKind::Direct),
    ("x.topic", ExchangeKind::Topic),
    ("x.fanout", ExchangeKind::Fanout),
];
pub(super) const KEYS: [&str; 7] = ["a", "b", "a.b", "c", "kept", "a.#", "*.b"];

/// Channels 0 and 1 publish, with confirms and without; 2 to 5 consume; the third publisher is in the process.
pub(super) const CHANNELS: usize = 6;
pub(super) const IN_PROCESS: usize = 2;

#[derive(Clone, Debug)]
pub(super) enum Step {
    Publish(Publish),
    Bind { exchange: usize, target: Target, key: usize, bound: bool },
    Declare { queue: usize },
    Consume { channel: usize, queue: usize, prefetch: u16, no_ack: bool },
    Cancel { channel: usize },
    Get { channel: usize, queue: usize },
    Settle { channel: usize, which: usize, multiple: bool, verdict: u8 },
    CloseChannel { channel: usize },
    CloseConnection { connection: usize },
    PublishReply { which: usize, safe: bool },
    Feed,
    Purge { queue: usize },
    Wait { millis: u64 },
}

#[derive(Clone, Debug)]
pub(super) struct Publish {
    pub(super) publisher: usize,
    /// The default exchange beyond the others.
    pub(super) exchange: usize,
    pub(super) key: usize,
    pub(super) size: usize,
    pub(super) expiration: Option<u64>,
    pub(super) persistent: bool,
    pub(super) mandatory: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Queue(usize),
    Exchange(usize),
}

pub(super) fn publish() -> impl Strategy<Value = Publish> {
    let expiration = prop::option::weighted(0.3, 0u64..20);
    (0usize..3, 0usize..6, 0usize..5, 0usize..40, expiration, any::<bool>(), any::<bool>()).prop_map(
        |(publisher, exchange, key, size, expiration, persistent, mandatory)| {
            let exchange = exchange.min(EXCHANGES.len());
            Publish { publisher, exchange, key, size, expiration, persistent, mandatory }
        },
    )
}

pub(super) fn step() -> impl Strategy<Value = Step> {
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
        6 => (0usize..8, prop::bool::weighted(0.8)).prop_map(|(which, safe)| Step::PublishReply { which, safe }),
        5 => Just(Step::Feed),
        1 => queue.prop_map(|queue| Step::Purge { queue }),
        5 => (0u64..15).prop_map(|millis| Step::Wait { millis }),
    ]
}

/// The attributes of one queue. The kept one never deletes itself, as the embedder's don't.
pub(super) fn attributes() -> impl Strategy<Value = Attributes> {
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
