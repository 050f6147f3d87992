//! One queue: the messages that wait in it, its consumers, and what it holds in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{ConnectionKey, ConsumerKey, ExchangeKey};
use crate::declaration::{Overflow, Window};
use crate::message::Message;

/// One message in one queue.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) message: Arc<Message>,
    /// Its place in the queue's order, which a requeue restores.
    pub(crate) position: u64,
    /// Milliseconds; `u64::MAX` is never.
    pub(crate) expires: u64,
    /// The embedder's number for it, in a queue with a backing.
    pub(crate) token: u64,
    /// How often consumers requeued it.
    pub(crate) returns: u32,
    pub(crate) redelivered: bool,
}

/// What a declaration must repeat to be the same queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
    pub(crate) exclusive: bool,
    /// Milliseconds.
    pub(crate) message_ttl: Option<u64>,
    pub(crate) expires: Option<u64>,
    pub(crate) max_length: Option<usize>,
    pub(crate) max_bytes: Option<usize>,
    pub(crate) overflow: Overflow,
    pub(crate) delivery_limit: Option<u32>,
}

/// Which part of a queue the embedder stores.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Storage {
    pub(crate) sink: bool,
    /// The limits of what is fed ahead and of what is unacknowledged.
    pub(crate) backing: Option<(Window, Window)>,
}

/// The window of a queue with a backing.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) limit: Window,
    pub(crate) unacknowledged: Window,
    /// Rises with each window.
    pub(crate) id: u64,
    pub(crate) open: bool,
    /// Credit that was granted and not yet used.
    pub(crate) granted_messages: usize,
    pub(crate) granted_bytes: i64,
}

pub(crate) struct Queue {
    pub(crate) name: Arc<str>,
    pub(crate) attributes: Attributes,
    /// The connection an exclusive queue belongs to.
    pub(crate) owner: Option<ConnectionKey>,
    pub(crate) sink: bool,
    /// Boxed because few queues have it: ten thousand queues must fit into the CPU's caches.
    pub(crate) feed: Option<Box<Feed>>,
    pub(crate) ready: VecDeque<Entry>,
    /// Bodies only: what length limits and windows count.
    pub(crate) ready_bytes: usize,
    pub(crate) unacknowledged: usize,
    pub(crate) unacknowledged_bytes: usize,
    /// Everything counted against the memory limit: ready, unacknowledged, delivered without acknowledgement but not yet
    /// written, and at the sink.
    pub(crate) held: usize,
    pub(crate) consumers: Vec<ConsumerKey>,
    /// Consumers that can take a message, as far as is known. The front is next.
    pub(crate) active: VecDeque<ConsumerKey>,
    pub(crate) exclusive_consumer: bool,
    pub(crate) bindings: Vec<(ExchangeKey, Box<str>)>,
    /// Last use, for `expires`, and when the timer for this queue fires.
    pub(crate) used: u64,
    pub(crate) timer: Option<u64>,
    /// Connections that are paused until this queue holds at most `relief`.
    pub(crate) paused: Vec<ConnectionKey>,
    pub(crate) relief: usize,
    /// In the list of queues to look at before the operation ends.
    pub(crate) dirty: bool,
    next_position: u64,
}

impl Queue {
    pub(crate) fn new(
        name: Arc<str>,
        attributes: Attributes,
        owner: Option<ConnectionKey>,
        storage: Storage,
        now: u64,
    ) -> Queue {
        Queue {
            name,
            attributes,
            owner,
            sink: storage.sink,
            feed: storage.backing.map(|(limit, unacknowledged)| {
                let (granted_messages, granted_bytes) = (0, 0);
                Box::new(Feed { limit, unacknowledged, id: 0, open: false, granted_messages, granted_bytes })
            }),
            ready: VecDeque::new(),
            ready_bytes: 0,
            unacknowledged: 0,
            unacknowledged_bytes: 0,
            held: 0,
            consumers: Vec::new(),
            active: VecDeque::new(),
            exclusive_consumer: false,
            bindings: Vec::new(),
            used: now,
            timer: None,
            paused: Vec::new(),
            relief: 0,
            dirty: false,
            next_position: 0,
        }
    }

    /// Appends a message.
    pub(crate) fn push(&mut self, message: Arc<Message>, token: u64, redelivered: bool, now: u64) {
        let ttl = match (self.attributes.message_ttl, message.expiration()) {
            (Some(queue), Some(message)) => Some(queue.min(message)),
            (queue, message) => queue.or(message),
        };
        let position = self.next_position;
        self.next_position += 1;
        self.ready_bytes += message.body().len();
        self.ready.push_back(Entry {
            message,
            position,
            expires: ttl.map_or(u64::MAX, |it| now.saturating_add(it)),
            token,
            returns: 0,
            redelivered,
        });
    }

    pub(crate) fn pop(&mut self) -> Option<Entry> {
        let entry = self.ready.pop_front()?;
        self.ready_bytes -= entry.message.body().len();
        if self.ready.is_empty() && self.ready.capacity() > 64 {
            self.ready.shrink_to(16);
        }
        Some(entry)
    }

    /// Puts an entry back where it was.
    pub(crate) fn put_back(&mut self, entry: Entry) {
        self.ready_bytes += entry.message.body().len();
        match self.ready.front() {
            Some(front) if front.position < entry.position => {
                let place = self.ready.partition_point(|it| it.position < entry.position);
                self.ready.insert(place, entry);
            }
            _ => self.ready.push_front(entry),
        }
    }

    /// The head, if it has expired.
    pub(crate) fn pop_expired(&mut self, now: u64) -> Option<Entry> {
        if self.ready.front()?.expires < now { self.pop() } else { None }
    }

    /// Whether it holds more than its length limit allows.
    pub(crate) fn overflows(&self) -> bool {
        self.attributes.max_length.is_some_and(|it| self.ready.len() > it)
            || self.attributes.max_bytes.is_some_and(|it| self.ready_bytes > it)
    }

    /// Whether one more message would exceed the length limit.
    pub(crate) fn full(&self, body: usize) -> bool {
        self.attributes.max_length.is_some_and(|it| self.ready.len() >= it)
            || self.attributes.max_bytes.is_some_and(|it| self.ready_bytes + body > it)
    }

    /// Whether another message may be delivered and wait for its acknowledgement.
    pub(crate) fn may_deliver(&self) -> bool {
        self.feed.as_ref().is_none_or(|feed| {
            self.unacknowledged == 0
                || (self.unacknowledged < feed.unacknowledged.messages
                    && self.unacknowledged_bytes < feed.unacknowledged.bytes)
        })
    }

    /// When its head or the queue itself expires, whichever is first.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let head = self.ready.front().map(|it| it.expires).filter(|it| *it != u64::MAX);
        let head = head.map(|it| it.saturating_add(1));
        let unused = if self.consumers.is_empty() { self.attributes.expires } else { None };
        let unused = unused.map(|it| self.used.saturating_add(it));
        match (head, unused) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    pub(crate) fn keep_consumers(&mut self, keep: impl Fn(ConsumerKey) -> bool) {
        self.consumers.retain(|it| keep(*it));
        self.active.retain(|it| keep(*it));
        if self.consumers.is_empty() {
            self.exclusive_consumer = false;
        }
    }
}
