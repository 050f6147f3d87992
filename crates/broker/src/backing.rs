//! A queue's backing: feeds the queue's consumers from the embedder's store.
//!
//! The broker keeps messages in memory only. When a queue has a [`Backing`], the broker holds no more than a window of
//! what the embedder has stored, and asks for more as consumers drain it. What is published into the queue is the matter
//! of its [`Sink`](crate::Sink).

use std::sync::Arc;

use crate::message::Message;

/// Feeds the consumers of one queue from the embedder's store.
///
/// While the queue has a consumer, the broker holds a **window** of stored messages. A window begins with its first
/// [`Credit`]. It ends when the last consumer leaves or the queue is deleted: the broker then forgets everything in it,
/// delivered or not, and the embedder still has it. The next consumer begins a new window with a new id, and the embedder
/// feeds it from the start: everything that was not acknowledged, in order.
///
/// The messages of a window are delivered, redelivered and counted like those of any queue. Each token is reported at
/// most once: to `acknowledged` or to `dropped`, or not at all when the window ends first.
///
/// All calls are made outside the broker's lock, from the task of the connection that caused them: return quickly and
/// leave the work to a task of your own. They may call the [`Handle`](crate::Handle). What the embedder causes itself (a
/// [`feed`](crate::Handle::feed) that is drained at once and leaves room for more) is reported later, from a task of
/// the broker: the embedder may therefore use the handle while it holds locks that its sinks and backings take too.
///
/// Calls for one queue come from different connections, so they may overlap or overtake each other. The window's id says
/// which are out of date: ignore a call about a window lower than the highest seen.
pub trait Backing: Send + Sync + 'static {
    /// There is room for more messages; [`CreditBalance`] keeps count of it. Send them with
    /// [`Handle::feed`](crate::Handle::feed), now or when there are any.
    fn grant(&self, queue: &Arc<str>, credit: Credit);

    /// A consumer acknowledged these; `user` is who it logged in as (empty inside the process).
    fn acknowledged(&self, queue: &Arc<str>, user: &Arc<str>, tokens: &[u64]);

    /// These were dropped and will not be delivered again.
    fn dropped(&self, queue: &Arc<str>, tokens: &[u64], why: DropReason);

    /// The last consumer left, and this window has ended. `unacknowledged` had been delivered: feed them with
    /// `redelivered` set when you feed them again. The others had not.
    fn ended(&self, queue: &Arc<str>, window: u64, unacknowledged: &[u64]) {
        let _ = (queue, window, unacknowledged);
    }
}

/// Room in a window, in addition to what was granted before for the same window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// Rises with each new window of the queue.
    pub window: u64,
    /// So many more messages,
    pub messages: usize,
    /// and so many more bytes of bodies. Feed while both are above zero: the last message may exceed the bytes, so that
    /// a message larger than a whole window can be fed too.
    pub bytes: usize,
}

/// Why a message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// A consumer rejected it without requeueing.
    Rejected,
    /// Its time to live, or its queue's, ran out.
    Expired,
    /// Consumers requeued it more often than the queue's delivery limit allows.
    DeliveryLimit,
    /// The queue's length limit pushed it out.
    Overflow,
    Purged,
    /// The queue was deleted.
    Deleted,
}

/// A message of the embedder's store, for a queue with a backing.
#[derive(Clone, Debug)]
pub struct StoredMessage {
    /// The embedder's number for it, reported with its acknowledgement or drop.
    pub token: u64,
    pub message: Message,
    /// Whether it was delivered before, in an earlier window.
    pub redelivered: bool,
}

/// Counts the credit of a queue's window: how much the embedder may still feed.
///
/// ```
/// # use broker::{CreditBalance, Credit};
/// let mut credit = CreditBalance::default();
/// assert!(credit.add(Credit { window: 1, messages: 2, bytes: 100 }), "a new window: feed from the start");
/// assert!(credit.take(90) && credit.take(90), "the last one may exceed the bytes");
/// assert!(!credit.take(1));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CreditBalance {
    window: u64,
    messages: usize,
    bytes: i64,
}

impl CreditBalance {
    /// Adds a grant. `true` when it begins a new window: feed from the start of the store again. A grant for an earlier
    /// window changes nothing.
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

    /// Whether a message with a body of this size may be fed now. If so, it is counted as fed.
    pub fn take(&mut self, bytes: usize) -> bool {
        if !self.open() {
            return false;
        }
        self.messages -= 1;
        self.bytes -= i64::try_from(bytes).unwrap_or(i64::MAX / 2);
        true
    }

    /// Whether there is room for at least one more.
    pub fn open(&self) -> bool {
        self.messages > 0 && self.bytes > 0
    }

    /// How many messages may be fed at most.
    pub fn messages(&self) -> usize {
        if self.bytes > 0 { self.messages } else { 0 }
    }

    /// The id of the open window, to feed it with.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// Removes all credit: the window has ended, or `feed` returned that it has.
    pub fn close(&mut self) {
        self.messages = 0;
        self.bytes = 0;
    }
}
