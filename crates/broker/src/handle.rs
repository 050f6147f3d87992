//! The owner's hand on the broker, in process and without sockets.
//!
//! Everything here is synchronous and takes effect before it returns, with the semantics a remote client gets;
//! only what waits by nature (a confirm, the next delivery) is a future. Nothing here asks
//! [`AccessControl`](crate::AccessControl): the owner may do all.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::oneshot;

use crate::consumer::Consumer;
use crate::core::{Error as Refused, ExchangeAttributes, Publisher};
use crate::message::Message;
use crate::owner::{Backing, Sink, StoredMessage};
use crate::server::outbox::CUT;
use crate::server::shared::Shared;

/// The broker, from inside the process. Cloning is cheap.
#[derive(Clone)]
pub struct Handle {
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
/// again when the next [`Credit`](crate::Credit) comes.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the window has ended")]
pub struct WindowEnded;

/// What became of a published message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// Every queue it was routed to has it (sinks: the owner said safe).
    Confirmed,
    /// It matched no queue.
    Unroutable,
    /// At least one queue did not take it.
    Refused,
}

/// The answer to a [`Handle::publish`]. Dropping it forgets the answer, not the message.
pub struct Confirm {
    outcome: oneshot::Receiver<Confirmation>,
}

impl Future for Confirm {
    type Output = Confirmation;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Confirmation> {
        Pin::new(&mut self.outcome).poll(context).map(|it| it.unwrap_or(Confirmation::Refused))
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
    /// How often a queue or its sink did not take a message.
    pub refused: u64,
    pub fed: u64,
    pub delivered: u64,
    pub redelivered: u64,
    pub acknowledged: u64,
    pub dropped: u64,
    /// Fed, and gone with their window before anybody had them for good: their owner still has them.
    pub forgotten: u64,
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
    pub(crate) fn new(shared: Arc<Shared>) -> Handle {
        let handle = Handle { shared };
        for (name, kind) in [
            ("amq.direct", ExchangeKind::Direct),
            ("amq.fanout", ExchangeKind::Fanout),
            ("amq.topic", ExchangeKind::Topic),
        ] {
            // A new broker has no exchange that could be different.
            let _ = handle.declare_exchange(name, kind, true);
        }
        handle
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub fn declare_exchange(
        &self,
        name: &str,
        kind: ExchangeKind,
        durable: bool,
    ) -> Result<(), DeclareError> {
        if name.is_empty() {
            return Err(DeclareError::Reserved(name.into()));
        }
        let attributes = ExchangeAttributes { kind, durable, auto_delete: false, internal: false };
        let declared = self.shared.lock_by_owner().core().declare_exchange(name, attributes);
        declared.map_err(|_| DeclareError::Different(name.into()))
    }

    /// `false` when there was none.
    pub fn delete_exchange(&self, name: &str) -> bool {
        self.shared.lock_by_owner().core().delete_exchange(name, false).unwrap_or(false)
    }

    /// Declares a queue. Declaring again with the same attributes changes nothing but the sink and the backing, which
    /// are replaced (a backed queue stays a backed queue).
    pub fn declare_queue(&self, name: &str, options: QueueOptions) -> Result<(), DeclareError> {
        let mut locked = self.shared.lock_by_owner();
        let declared = locked.state().declare(name, options);
        locked.core().run();
        match declared {
            Ok(_) => Ok(()),
            Err(Refused::Locked) => Err(DeclareError::Locked(name.into())),
            Err(_) => Err(DeclareError::Different(name.into())),
        }
    }

    /// `false` when there was none.
    pub fn delete_queue(&self, name: &str) -> bool {
        let mut locked = self.shared.lock_by_owner();
        let Some(key) = locked.core().queue_key(name) else { return false };
        locked.core().drop_queue(key);
        locked.core().run();
        true
    }

    /// Drops what waits in the queue (not what is delivered). How many.
    pub fn purge_queue(&self, name: &str) -> usize {
        let mut locked = self.shared.lock_by_owner();
        let purged = locked.core().purge_queue(name, None);
        locked.core().run();
        purged.unwrap_or(0) as usize
    }

    pub fn bind(&self, queue: &str, exchange: &str, routing_key: &str) -> Result<(), DeclareError> {
        self.shared.lock_by_owner().core().bind_queue(queue, exchange, routing_key).map_err(|error| {
            match error {
                Refused::NoExchange => DeclareError::NoExchange(exchange.into()),
                _ => DeclareError::NoQueue(queue.into()),
            }
        })
    }

    /// Does nothing when there is no such binding.
    pub fn unbind(&self, queue: &str, exchange: &str, routing_key: &str) {
        // What is not there is not bound either.
        let _ = self.shared.lock_by_owner().core().unbind_queue(queue, exchange, routing_key);
    }

    /// Publishes to the exchange and routing key the message names. Routed when this returns; never paused by the
    /// memory limit. An exchange that does not exist routes nowhere.
    pub fn publish(&self, message: Message) -> Confirm {
        let mut locked = self.shared.lock_by_owner();
        let (number, outcome) = locked.expect_confirm();
        let routed = locked.core().publish(Publisher::Local(number), Arc::new(message), false);
        if routed.unwrap_or(0) == 0
            && let Some(waiting) = locked.forget_confirm(number)
        {
            // The receiver is here.
            let _ = waiting.send(Confirmation::Unroutable);
        }
        locked.core().run();
        Confirm { outcome }
    }

    pub fn consume(&self, queue: &str, options: ConsumeOptions) -> Result<Consumer, ConsumeError> {
        Consumer::start(&self.shared, queue, options)
    }

    /// Gives a backed queue messages for its window, in order. More than was wanted is taken too, and held.
    pub fn feed(&self, queue: &str, window: u64, messages: Vec<StoredMessage>) -> Result<(), WindowEnded> {
        self.shared.lock_by_owner().core().feed(queue, window, messages).map_err(|_| WindowEnded)
    }

    /// Ends every connection of this user now (320 CONNECTION_FORCED). How many. Whoever changed the table behind
    /// [`AccessControl`](crate::AccessControl) first has no connection of theirs left when this returns: log-ins still on their
    /// way are stopped by [`Operation::Open`](crate::Operation::Open).
    pub fn disconnect_user(&self, user: &str) -> usize {
        self.disconnect_users(|it| it == user)
    }

    /// The same for every user that `whose` names. It is called for each connection while the broker's state is locked.
    pub fn disconnect_users(&self, whose: impl Fn(&str) -> bool) -> usize {
        let mut locked = self.shared.lock_by_owner();
        let connections: Vec<_> = locked.core().connections_whose(whose).collect();
        for connection in &connections {
            // What it held is given back here and now; its task only has to say farewell.
            locked.core().close_connection(*connection);
            locked.signal(*connection, CUT);
        }
        connections.len()
    }

    pub fn stats(&self) -> Stats {
        let mut locked = self.shared.lock_by_owner();
        let sizes = locked.core().sizes();
        let counts = locked.core().counts;
        Stats {
            connections: sizes.connections,
            channels: sizes.channels,
            consumers: sizes.consumers,
            queues: sizes.queues,
            exchanges: sizes.exchanges,
            ready: counts.ready,
            unacknowledged: counts.unacknowledged,
            memory: sizes.memory,
            paused: sizes.paused,
            published: counts.published,
            unroutable: counts.unroutable,
            refused: counts.refused,
            fed: counts.fed,
            delivered: counts.delivered,
            redelivered: counts.redelivered,
            acknowledged: counts.acknowledged,
            dropped: counts.dropped,
            forgotten: counts.forgotten,
        }
    }

    /// `None` when there is no such queue.
    pub fn queue(&self, name: &str) -> Option<QueueStats> {
        let mut locked = self.shared.lock_by_owner();
        locked.core().queue(name).map(|it| QueueStats {
            ready: it.ready.len(),
            unacknowledged: it.unacknowledged,
            consumers: it.consumers.len(),
            bytes: it.held,
        })
    }
}
