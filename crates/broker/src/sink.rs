//! A queue's sink: takes what clients publish into the queue, and confirms it once the embedder has stored it.
//!
//! The broker keeps messages in memory only. When a queue has a [`Sink`], what is published into it goes to the embedder
//! and nowhere else, and the publisher gets its confirm when the embedder says that the message is safe. What consumers
//! of the queue receive is the matter of its [`Backing`](crate::Backing).

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::message::{Message, Properties};

/// Takes what is published into one queue.
///
/// The call is made outside the broker's lock, from the task of the connection that published: return quickly and leave
/// the work to a task of your own. It may call the [`Handle`](crate::Handle).
pub trait Sink: Send + Sync + 'static {
    /// Called in the order in which each connection publishes. Until `reply` is used or dropped, the message counts
    /// against the memory limit, and a queue that holds too much pauses its publishers.
    fn accept(&self, message: Published, reply: PublishReply);
}

/// A message that was published into a queue with a sink.
#[derive(Clone, Debug)]
pub struct Published {
    /// The queue that it was routed to.
    pub queue: Arc<str>,
    /// The user who published it; empty when it came through the [`Handle`](crate::Handle).
    pub user: Arc<str>,
    pub(crate) message: Arc<Message>,
}

impl Published {
    pub fn exchange(&self) -> &str {
        self.message.exchange()
    }

    pub fn routing_key(&self) -> &str {
        self.message.routing_key()
    }

    /// The properties as the publisher sent them: property flags and list, byte for byte.
    pub fn raw_properties(&self) -> &Bytes {
        self.message.raw_properties()
    }

    /// The properties parsed. This allocates; the broker itself never does it.
    pub fn properties(&self) -> Properties {
        self.message.properties()
    }

    pub fn body(&self) -> &Bytes {
        self.message.body()
    }

    /// Whether the delivery mode is 2.
    pub fn persistent(&self) -> bool {
        self.message.persistent()
    }
}

/// Takes the embedder's replies: the broker's side of [`PublishReply`].
pub(crate) trait TakeReplies: Send + Sync {
    /// `tickets` are the numbers under which the core waits for replies.
    fn take_replies(self: Arc<Self>, tickets: &[u64], safe: bool);
}

/// The embedder's reply to one message of a [`Sink`]. Dropping it refuses the message.
#[must_use = "dropping a reply refuses the message"]
pub struct PublishReply {
    /// `None` once it was used.
    waiting: Option<(u64, Arc<dyn TakeReplies>)>,
}

impl PublishReply {
    pub(crate) fn new(ticket: u64, broker: Arc<dyn TakeReplies>) -> PublishReply {
        PublishReply { waiting: Some((ticket, broker)) }
    }

    /// The message is stored: its publisher gets the confirm, once every queue that it was routed to has replied.
    pub fn safe(mut self) {
        self.send(true);
    }

    /// The message was not taken: its publisher gets a nack.
    pub fn refuse(mut self) {
        self.send(false);
    }

    fn send(&mut self, safe: bool) {
        if let Some((ticket, broker)) = self.waiting.take() {
            broker.take_replies(&[ticket], safe);
        }
    }

    /// Replies `safe` to many messages at once, under one lock, as a group commit needs it.
    pub fn all_safe(replies: impl IntoIterator<Item = PublishReply>) {
        let mut to = None;
        let mut tickets = Vec::new();
        for mut reply in replies {
            if let Some((ticket, broker)) = reply.waiting.take() {
                tickets.push(ticket);
                to.get_or_insert(broker);
            }
        }
        if let Some(broker) = to {
            broker.take_replies(&tickets, true);
        }
    }
}

impl Drop for PublishReply {
    fn drop(&mut self) {
        self.send(false);
    }
}

impl fmt::Debug for PublishReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PublishReply").field(&self.waiting.as_ref().map(|it| it.0)).finish()
    }
}
