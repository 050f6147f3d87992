//! How queues and exchanges are declared, and why a declaration is refused.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::backing::Backing;
use crate::sink::Sink;

/// Kinds of exchanges: which bindings a message matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExchangeKind {
    /// Those whose key is the routing key.
    Direct,
    /// Those whose pattern matches the routing key, in words between dots: `*` is one word, `#` any number.
    Topic,
    /// Every binding.
    Fanout,
}

/// What happens when a message is published into a queue that has reached its length limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The oldest message is dropped.
    #[default]
    DropHead,
    /// The new message is refused with a nack.
    RejectPublish,
}

/// A limit in messages and in bytes, whichever is reached first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub messages: usize,
    pub bytes: usize,
}

/// How a queue is declared. `QueueOptions::default()` is a plain transient queue.
#[derive(Clone)]
pub struct QueueOptions {
    /// The embedder declares the queue again after a restart: the broker keeps nothing on disk. A persistent message
    /// published with confirms into a durable queue without a sink is refused.
    pub durable: bool,
    /// Deleted when its last consumer leaves.
    pub auto_delete: bool,
    pub message_ttl: Option<Duration>,
    /// Deleted when unused (no consumer, declaration or get) for so long.
    pub expires: Option<Duration>,
    pub max_length: Option<usize>,
    pub max_bytes: Option<usize>,
    pub overflow: Overflow,
    /// How often consumers may requeue one message before it is dropped. `None` is the broker's default.
    pub delivery_limit: Option<u32>,
    /// Takes what is published into the queue.
    pub sink: Option<Arc<dyn Sink>>,
    /// Feeds the queue's consumers.
    pub backing: Option<Arc<dyn Backing>>,
    /// With a backing: the limit of messages that were fed and not yet delivered.
    pub window: Window,
    /// With a backing: the limit of messages that were delivered and not yet acknowledged, whatever the consumers'
    /// prefetch.
    pub unacknowledged: Window,
}

impl Default for QueueOptions {
    fn default() -> QueueOptions {
        QueueOptions {
            durable: false,
            auto_delete: false,
            message_ttl: None,
            expires: None,
            max_length: None,
            max_bytes: None,
            overflow: Overflow::default(),
            delivery_limit: None,
            sink: None,
            backing: None,
            window: Window { messages: 1_000, bytes: 8 << 20 },
            unacknowledged: Window { messages: 10_000, bytes: 64 << 20 },
        }
    }
}

/// Why a declaration or a binding was refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DeclareError {
    #[error("'{0}' exists with other attributes")]
    Different(String),
    #[error("'{0}' belongs to another connection")]
    Locked(String),
    #[error("no exchange '{0}'")]
    NoExchange(String),
    #[error("no queue '{0}'")]
    NoQueue(String),
    #[error("'{0}' is the server's own")]
    Reserved(String),
}
