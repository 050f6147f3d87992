//! The owner's hand on the broker, in process and without sockets.
//!
//! Everything here is synchronous and takes effect before it returns, with the semantics a remote client gets;
//! only what waits by nature (a confirm, the next delivery) is a future. Nothing here asks
//! [`Access`](crate::Access): the owner may do all.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use thiserror::Error;

use crate::message::Message;
use crate::owner::{Backing, Fed, Sink};

/// The broker's state and what its shell keeps beside it.
pub(crate) struct Shared {}

impl Shared {
    pub(crate) fn settle(&self, tickets: &[u64], safe: bool) {
        let _ = (tickets, safe);
        todo!("interface first")
    }
}

/// The broker, from inside the process. Cloning is cheap.
#[derive(Clone)]
pub struct Handle {
    #[allow(dead_code)]
    shared: Arc<Shared>,
}

/// Kinds of exchanges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExchangeKind {
    /// The routing key is the binding's key.
    Direct,
    /// The routing key, in words between dots, matches the binding's pattern: `*` is one word, `#` any number.
    Topic,
    /// Every binding.
    Fanout,
}

/// What pushes a message when a queue with a length limit is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The oldest goes.
    #[default]
    DropHead,
    /// The new one is refused (a nack).
    RejectPublish,
}

/// So many messages or so many bytes, whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub messages: usize,
    pub bytes: usize,
}

/// How a queue is declared. `QueueOptions::default()` is a plain transient queue.
#[derive(Clone)]
pub struct QueueOptions {
    /// A name for "the owner declares it again after a restart": the broker itself keeps nothing on disk. A persistent
    /// message published into a durable queue that has no sink is refused.
    pub durable: bool,
    /// Deleted when its last consumer goes.
    pub auto_delete: bool,
    pub message_ttl: Option<Duration>,
    /// Deleted when unused (no consumer, no declare, no get) for so long.
    pub expires: Option<Duration>,
    pub max_length: Option<usize>,
    pub max_bytes: Option<usize>,
    pub overflow: Overflow,
    /// How often consumers may requeue one message before it is dropped; `None`: the broker's default.
    pub delivery_limit: Option<u32>,
    /// What is published into the queue goes there.
    pub sink: Option<Arc<dyn Sink>>,
    /// What its consumers receive comes from there.
    pub backing: Option<Arc<dyn Backing>>,
    /// Fed and not yet delivered, at most. Backed queues only.
    pub window: Window,
    /// Delivered and not yet acknowledged, at most, whatever the consumers' prefetch. Backed queues only.
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

/// Why a declaration was not accepted.
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

/// A [`Handle::feed`] that came too late: nothing of it was taken. The window it was meant for has ended, so feed
/// again when the next [`Want`](crate::Want) comes.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the window has ended")]
pub struct Stale;

/// What became of a published message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every queue it was routed to has it (sinks: the owner said safe).
    Confirmed,
    /// It matched no queue.
    Unroutable,
    /// At least one queue did not take it.
    Refused,
}

/// The answer to a [`Handle::publish`]. Dropping it forgets the answer, not the message.
pub struct Confirm {}

impl Future for Confirm {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Outcome> {
        todo!("interface first")
    }
}

/// How an in-process consumer consumes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsumeOptions {
    pub exclusive: bool,
    /// Deliveries count as acknowledged when delivered.
    pub no_ack: bool,
    /// Unacknowledged deliveries at a time; 0 is unlimited.
    pub prefetch: u16,
}

/// Why a queue can't be consumed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ConsumeError {
    #[error("no queue '{0}'")]
    NoQueue(String),
    #[error("queue '{0}' is in exclusive use")]
    InUse(String),
}

/// A consumer inside the process. Dropping it is what a lost connection is: what it had not settled is redelivered
/// to others.
pub struct Consumer {}

/// One delivery.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub tag: u64,
    pub redelivered: bool,
    pub message: Arc<Message>,
}

impl Consumer {
    /// The next delivery; `None` once the queue is deleted.
    pub async fn next(&mut self) -> Option<Delivery> {
        todo!("interface first")
    }

    /// Acknowledges one delivery, or with `multiple` all up to it.
    pub fn ack(&self, tag: u64, multiple: bool) {
        let _ = (tag, multiple);
        todo!("interface first")
    }

    /// Gives deliveries back: to be delivered again, or to be dropped.
    pub fn nack(&self, tag: u64, multiple: bool, requeue: bool) {
        let _ = (tag, multiple, requeue);
        todo!("interface first")
    }
}

/// Counters since the start, and gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub connections: usize,
    pub channels: usize,
    pub consumers: usize,
    pub queues: usize,
    pub exchanges: usize,
    /// Messages waiting here, and delivered but not acknowledged.
    pub ready: usize,
    pub unacknowledged: usize,
    /// Bytes counted against [`Config::memory_limit`](crate::Config::memory_limit), and connections paused by it.
    pub memory: usize,
    pub paused: usize,
    pub published: u64,
    pub unroutable: u64,
    pub refused: u64,
    pub fed: u64,
    pub delivered: u64,
    pub redelivered: u64,
    pub acknowledged: u64,
    pub dropped: u64,
}

/// One queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    pub ready: usize,
    pub unacknowledged: usize,
    pub consumers: usize,
    pub bytes: usize,
}

impl Handle {
    pub fn declare_exchange(
        &self,
        name: &str,
        kind: ExchangeKind,
        durable: bool,
    ) -> Result<(), DeclareError> {
        let _ = (name, kind, durable);
        todo!("interface first")
    }

    /// `false` when there was none.
    pub fn delete_exchange(&self, name: &str) -> bool {
        let _ = name;
        todo!("interface first")
    }

    /// Declares a queue. Declaring again with the same attributes changes nothing but the sink and the backing, which
    /// are replaced.
    pub fn declare_queue(&self, name: &str, options: QueueOptions) -> Result<(), DeclareError> {
        let _ = (name, options);
        todo!("interface first")
    }

    /// `false` when there was none.
    pub fn delete_queue(&self, name: &str) -> bool {
        let _ = name;
        todo!("interface first")
    }

    /// Drops what waits in the queue (not what is delivered). How many.
    pub fn purge_queue(&self, name: &str) -> usize {
        let _ = name;
        todo!("interface first")
    }

    pub fn bind(&self, queue: &str, exchange: &str, routing_key: &str) -> Result<(), DeclareError> {
        let _ = (queue, exchange, routing_key);
        todo!("interface first")
    }

    /// Does nothing when there is no such binding.
    pub fn unbind(&self, queue: &str, exchange: &str, routing_key: &str) {
        let _ = (queue, exchange, routing_key);
        todo!("interface first")
    }

    /// Publishes to the exchange and routing key the message names. Routed when this returns; never paused by the
    /// memory limit.
    pub fn publish(&self, message: Message) -> Confirm {
        let _ = message;
        todo!("interface first")
    }

    pub fn consume(&self, queue: &str, options: ConsumeOptions) -> Result<Consumer, ConsumeError> {
        let _ = (queue, options);
        todo!("interface first")
    }

    /// Gives a backed queue messages for its window, in order. More than was wanted is taken too, and held.
    pub fn feed(&self, queue: &str, window: u64, messages: Vec<Fed>) -> Result<(), Stale> {
        let _ = (queue, window, messages);
        todo!("interface first")
    }

    /// Ends every connection of this user now (320 CONNECTION_FORCED). How many. Whoever changed the table behind
    /// [`Access`](crate::Access) first has no connection of theirs left when this returns: log-ins still on their way are stopped
    /// by [`Operation::Open`](crate::Operation::Open).
    pub fn cut(&self, user: &str) -> usize {
        let _ = user;
        todo!("interface first")
    }

    pub fn stats(&self) -> Stats {
        todo!("interface first")
    }

    /// `None` when there is no such queue.
    pub fn queue(&self, name: &str) -> Option<QueueStats> {
        let _ = name;
        todo!("interface first")
    }
}
