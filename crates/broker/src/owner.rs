//! Durability belongs to the owner: sinks take messages in, backings feed them out.
//!
//! The broker keeps every message in memory only. A queue whose messages must survive is tied to the owner's store:
//!
//! * with a [`Sink`], what is published into the queue goes to the owner and nowhere else; the publisher's confirm is
//!   sent when the owner says the message is safe;
//! * with a [`Backing`], what consumers of the queue receive is fed by the owner from its store, as they drain it.
//!
//! A queue may have both. All these calls are made outside the broker's lock, from the task of the connection that
//! caused them: return quickly, hand the work to your own task. They may call the [`Handle`](crate::Handle). What the
//! owner causes itself (a [`feed`](crate::Handle::feed) that is drained at once and leaves room for more) is called
//! later, from a task of the broker while it runs: so the owner may use the handle while it holds locks that its sinks
//! and backings take too.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::message::{Message, Properties};
use crate::server::shared::Shared;

/// Takes what is published into one queue.
pub trait Sink: Send + Sync + 'static {
    /// Called in the order of each publishing connection. The message counts against the memory limit until
    /// `answer` is given, and a queue that holds too much pauses its publishers.
    fn accept(&self, message: Published, answer: PublishReply);
}

/// A message on its way to the owner.
#[derive(Clone, Debug)]
pub struct Published {
    /// The queue it was routed to.
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

    /// The properties as they came: property flags and list, byte for byte.
    pub fn raw_properties(&self) -> &Bytes {
        self.message.raw_properties()
    }

    /// The properties parsed. Costs allocations: the broker itself never does it.
    pub fn properties(&self) -> Properties {
        self.message.properties()
    }

    pub fn body(&self) -> &Bytes {
        self.message.body()
    }

    /// Delivery mode 2.
    pub fn persistent(&self) -> bool {
        self.message.persistent()
    }
}

/// The owner's answer for one message of a [`Sink`]. Dropping it refuses.
#[must_use = "dropping an answer refuses the message"]
pub struct PublishReply {
    pub(crate) ticket: Option<u64>,
    pub(crate) shared: Arc<Shared>,
}

impl PublishReply {
    /// The message can't be lost any more: the publisher's confirm is sent (once every queue it was routed to has
    /// answered).
    pub fn safe(mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.shared.settle(&[ticket], true);
        }
    }

    /// The message was not taken: the publisher gets a nack.
    pub fn refuse(mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.shared.settle(&[ticket], false);
        }
    }

    /// Answers many at once, under one lock: what a group commit wants.
    pub fn all_safe(answers: impl IntoIterator<Item = PublishReply>) {
        let mut shared = None;
        let mut tickets = Vec::new();
        for mut answer in answers {
            tickets.extend(answer.ticket.take());
            shared.get_or_insert_with(|| answer.shared.clone());
        }
        if let Some(shared) = shared {
            shared.settle(&tickets, true);
        }
    }
}

impl Drop for PublishReply {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.shared.settle(&[ticket], false);
        }
    }
}

impl fmt::Debug for PublishReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PublishReply").field(&self.ticket).finish()
    }
}

/// Feeds the consumers of one queue from the owner's store.
///
/// While the queue has a consumer, the broker holds a **window**. A window begins with its first [`Credit`] and ends
/// with the last consumer (or the queue): then everything in it is forgotten here, delivered or not, and the owner
/// still has it. The next consumer begins a new window with a new id, and the owner feeds again from its truth:
/// everything not acknowledged, in order.
///
/// The messages of a window are delivered, redelivered and counted as those of any queue; each comes back by its
/// token exactly once: in `acknowledged`, in `dropped`, or in silence when the window ends.
///
/// Calls for one queue may overlap or overtake each other (they come from different connections); the window's id
/// tells what is old: a call about a window lower than the highest seen is history.
pub trait Backing: Send + Sync + 'static {
    /// There is room for more: [`CreditBalance`] is ready-made bookkeeping for it. Answer with
    /// [`Handle::feed`](crate::Handle::feed), now or when there is something to feed.
    fn grant(&self, queue: &Arc<str>, credit: Credit);

    /// A consumer has these; `user` is who it logged in as (empty inside the process).
    fn acknowledged(&self, queue: &Arc<str>, user: &Arc<str>, tokens: &[u64]);

    /// These will not be delivered any more, and why.
    fn dropped(&self, queue: &Arc<str>, tokens: &[u64], why: DropReason);

    /// The last consumer went: this window is over. `unacknowledged` had been delivered (feed them with
    /// `redelivered` set if they are still the truth); the others had not.
    fn ended(&self, queue: &Arc<str>, window: u64, unacknowledged: &[u64]) {
        let _ = (queue, window, unacknowledged);
    }
}

/// Room in a window, in addition to what was wanted before for the same window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// Rises with each new window of the queue.
    pub window: u64,
    /// So many more messages,
    pub messages: usize,
    /// and so many more bytes of bodies. Feed while both are above zero: the last message may go beyond, so that
    /// one that is larger than a whole window passes too.
    pub bytes: usize,
}

/// Why a message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// A consumer rejected it without requeueing.
    Rejected,
    /// Its time to live, or its queue's, ran out.
    Expired,
    /// It was requeued by consumers more often than the queue's delivery limit.
    DeliveryLimit,
    /// The queue's length limit pushed it out.
    Overflow,
    Purged,
    /// The queue was deleted.
    Deleted,
}

/// A message for a backed queue.
#[derive(Clone, Debug)]
pub struct StoredMessage {
    /// The owner's name for it; comes back with its acknowledgement or drop.
    pub token: u64,
    pub message: Message,
    /// Delivered before, in an earlier window.
    pub redelivered: bool,
}

/// The owner's side of a window's credit: how much may still be fed.
///
/// ```
/// # use broker::{CreditBalance, Credit};
/// let mut credit = CreditBalance::default();
/// assert!(credit.add(Credit { window: 1, messages: 2, bytes: 100 }), "a new window: feed from the start");
/// assert!(credit.take(90) && credit.take(90), "the last one may go beyond");
/// assert!(!credit.take(1));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CreditBalance {
    window: u64,
    messages: usize,
    bytes: i64,
}

impl CreditBalance {
    /// Adds what is wanted. `true` when this begins a new window: feed again from your truth. Wants of past windows
    /// change nothing.
    pub fn add(&mut self, credit: Credit) -> bool {
        let fresh = credit.window > self.window;
        if fresh {
            *self = CreditBalance { window: credit.window, messages: 0, bytes: 0 };
        }
        if credit.window == self.window {
            self.messages += credit.messages;
            self.bytes += i64::try_from(credit.bytes).unwrap_or(i64::MAX / 2);
        }
        fresh
    }

    /// May a message with a body of this size be fed now? Then it counts as fed.
    pub fn take(&mut self, bytes: usize) -> bool {
        if !self.open() {
            return false;
        }
        self.messages -= 1;
        self.bytes -= i64::try_from(bytes).unwrap_or(i64::MAX / 2);
        true
    }

    /// Is there room for at least one more?
    pub fn open(&self) -> bool {
        self.messages > 0 && self.bytes > 0
    }

    /// So many messages at most.
    pub fn messages(&self) -> usize {
        if self.bytes > 0 { self.messages } else { 0 }
    }

    /// The window that is open; feed it with this id.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// Nothing is wanted any more (the queue was unknown to `feed`, or the window ended).
    pub fn close(&mut self) {
        self.messages = 0;
        self.bytes = 0;
    }
}
