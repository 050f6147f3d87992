//! The embedder's interface to the broker, in process and without sockets.
//!
//! Every call is synchronous and takes effect before it returns, with the semantics that a remote client gets. Only what
//! waits by nature (a confirmation, the next delivery) is a future. [`AccessControl`](crate::AccessControl) is not
//! asked: the embedder may do everything.

use std::sync::Arc;

use thiserror::Error;

use crate::backing::StoredMessage;
use crate::confirmation::{Confirm, Confirmation};
use crate::consumer::{ConsumeError, ConsumeOptions, Consumer};
use crate::core::{Error as Refused, ExchangeAttributes, Publisher};
use crate::declaration::{DeclareError, ExchangeKind, QueueOptions};
use crate::driver::shared::Shared;
use crate::message::Message;

/// The broker, as the embedder uses it. Cloning is cheap.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

/// A [`Handle::feed`] came too late: its window has ended, and none of its messages was taken. Feed again when the next
/// [`Credit`](crate::Credit) comes.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the window has ended")]
pub struct WindowEnded;

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
    /// How often a queue or its sink refused a message.
    pub refused: u64,
    pub fed: u64,
    pub delivered: u64,
    pub redelivered: u64,
    pub acknowledged: u64,
    pub dropped: u64,
    /// Fed, and forgotten when their window ended before they were acknowledged: the embedder still has them.
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
            // A new broker has no exchange with other attributes.
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
        let declared = self.shared.lock_for_embedder().core().declare_exchange(name, attributes);
        declared.map_err(|_| DeclareError::Different(name.into()))
    }

    /// Returns `false` when there was none.
    pub fn delete_exchange(&self, name: &str) -> bool {
        self.shared.lock_for_embedder().core().delete_exchange(name, false).unwrap_or(false)
    }

    /// Declares a queue. Declaring it again with the same attributes replaces the sink and the backing and changes nothing
    /// else. A queue with a backing keeps one.
    pub fn declare_queue(&self, name: &str, options: QueueOptions) -> Result<(), DeclareError> {
        let mut locked = self.shared.lock_for_embedder();
        let declared = locked.declare(name, options);
        locked.core().run();
        match declared {
            Ok(_) => Ok(()),
            Err(Refused::Locked) => Err(DeclareError::Locked(name.into())),
            Err(_) => Err(DeclareError::Different(name.into())),
        }
    }

    /// Returns `false` when there was none.
    pub fn delete_queue(&self, name: &str) -> bool {
        let mut locked = self.shared.lock_for_embedder();
        let Some(key) = locked.core().queue_key(name) else { return false };
        locked.core().drop_queue(key);
        locked.core().run();
        true
    }

    /// Drops the messages that wait in the queue, not those that are delivered. Returns how many.
    pub fn purge_queue(&self, name: &str) -> usize {
        let mut locked = self.shared.lock_for_embedder();
        let purged = locked.core().purge_queue(name, None);
        locked.core().run();
        purged.unwrap_or(0) as usize
    }

    pub fn bind(&self, queue: &str, exchange: &str, routing_key: &str) -> Result<(), DeclareError> {
        self.shared.lock_for_embedder().core().bind_queue(queue, exchange, routing_key).map_err(|error| {
            match error {
                Refused::NoExchange => DeclareError::NoExchange(exchange.into()),
                _ => DeclareError::NoQueue(queue.into()),
            }
        })
    }

    /// Does nothing when there is no such binding.
    pub fn unbind(&self, queue: &str, exchange: &str, routing_key: &str) {
        // Without the queue or the exchange there is no binding either.
        let _ = self.shared.lock_for_embedder().core().unbind_queue(queue, exchange, routing_key);
    }

    /// Publishes to the exchange and routing key that the message names. The message is routed when this returns, and the
    /// memory limit never pauses it. An exchange that does not exist routes nowhere.
    pub fn publish(&self, message: Message) -> Confirm {
        let mut locked = self.shared.lock_for_embedder();
        let (number, confirmation) = locked.expect_confirm();
        let routed = locked.core().publish(Publisher::Local(number), Arc::new(message), false);
        if routed.unwrap_or(0) == 0
            && let Some(waiting) = locked.forget_confirm(number)
        {
            // Its receiver is `confirmation`.
            let _ = waiting.send(Confirmation::Unroutable);
        }
        locked.core().run();
        Confirm::new(confirmation)
    }

    pub fn consume(&self, queue: &str, options: ConsumeOptions) -> Result<Consumer, ConsumeError> {
        Consumer::start(&self.shared, queue, options)
    }

    /// Gives a queue with a backing messages for its window, in order. Messages beyond the credit are taken too.
    pub fn feed(&self, queue: &str, window: u64, messages: Vec<StoredMessage>) -> Result<(), WindowEnded> {
        self.shared.lock_for_embedder().core().feed(queue, window, messages).map_err(|_| WindowEnded)
    }

    /// Ends every connection of this user now (320 CONNECTION_FORCED, with `why`). How many. Withdraw the permissions in your
    /// [`AccessControl`](crate::AccessControl) first: then no connection of the user is left when this returns, because
    /// log-ins in progress are stopped by [`Operation::Open`](crate::Operation::Open).
    pub fn disconnect_user(&self, user: &str, why: &str) -> usize {
        self.disconnect_users(|it| it == user, why)
    }

    /// The same for every user that `whose` names. It is called for each connection while the broker's state is locked.
    pub fn disconnect_users(&self, whose: impl Fn(&str) -> bool, why: &str) -> usize {
        let why = Arc::from(why);
        let mut locked = self.shared.lock_for_embedder();
        let connections: Vec<_> = locked.core().connections_whose(whose).collect();
        for connection in &connections {
            locked.end_connection(*connection, &why);
        }
        connections.len()
    }

    pub fn stats(&self) -> Stats {
        let mut locked = self.shared.lock_for_embedder();
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
        let mut locked = self.shared.lock_for_embedder();
        locked.core().queue(name).map(|it| QueueStats {
            ready: it.ready.len(),
            unacknowledged: it.unacknowledged,
            consumers: it.consumers.len(),
            bytes: it.held,
        })
    }
}
