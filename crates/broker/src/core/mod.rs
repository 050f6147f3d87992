//! The broker's state and every decision about it. Pure: no IO, no clock, no locks.
//!
//! An operation changes the state at once and appends what must be done to [`Core::actions`], in order. After each
//! operation, and after the caller has appended its reply, [`Core::run`] delivers messages to the consumers that can
//! take them now.
//!
//! ```text
//!             publish/feed                      drain
//! publisher ---------------> queue: ready ----------------> channel: unacked --ack--> gone
//!                               ^                                |
//!                               '------- nack, loss -------------'
//! ```
//!
//! Invariants: an entry is either in one queue's `ready` or in one channel's `unacked`; positions rise within `ready`;
//! `held` of all queues adds up to `memory.total`.

mod action;
mod arena;
mod connection;
mod delivery;
mod exchange;
mod memory_limit;
#[cfg(test)]
mod model;
mod publish;
mod queue;
mod queues;
mod settle;
mod topic;
mod unacked;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use thiserror::Error as ThisError;

pub(crate) use self::action::{Action, Output};
pub(crate) use self::connection::{Consume, Got};
pub(crate) use self::exchange::ExchangeAttributes;
pub(crate) use self::publish::Publisher;
pub(crate) use self::queue::{Attributes, Entry, Storage};
pub(crate) use self::queues::Declared;
pub(crate) use self::settle::Verdict;

use self::arena::{Arena, Key};
use self::connection::{Channel, Connection, Consumer};
use self::exchange::Exchange;
use self::memory_limit::MemoryUse;
use self::publish::Ticket;
use self::queue::Queue;

pub(crate) type ConnectionKey = Key<Connection>;
pub(crate) type ChannelKey = Key<Channel>;
pub(crate) type ConsumerKey = Key<Consumer>;
pub(crate) type QueueKey = Key<Queue>;
pub(crate) type ExchangeKey = Key<Exchange>;

/// Why an operation was refused. The session gives each its reply code.
#[derive(Clone, Copy, Debug, ThisError, PartialEq, Eq)]
pub(crate) enum Error {
    #[error("no such queue")]
    NoQueue,
    #[error("no such exchange")]
    NoExchange,
    #[error("inequivalent argument '{what}'")]
    Different { what: &'static str },
    #[error("exclusive to another connection")]
    Locked,
    #[error("in exclusive use")]
    InUse,
    #[error("consumer tag in use")]
    TagTaken,
    #[error("unknown delivery tag")]
    UnknownTag,
    #[error("still in use")]
    StillUsed,
    #[error("not empty")]
    NotEmpty,
    #[error("the window has ended")]
    WindowEnded,
}

/// The few settings that decisions need.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) memory_limit: usize,
    /// Bytes of deliveries written ahead to one connection.
    pub(crate) output_window: usize,
    pub(crate) delivery_limit: u32,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) published: u64,
    pub(crate) unroutable: u64,
    pub(crate) refused: u64,
    pub(crate) fed: u64,
    pub(crate) delivered: u64,
    pub(crate) redelivered: u64,
    pub(crate) acknowledged: u64,
    pub(crate) dropped: u64,
    pub(crate) forgotten: u64,
    /// Gauges, kept as counters so that nothing needs a walk.
    pub(crate) ready: usize,
    pub(crate) unacknowledged: usize,
}

/// The state of the broker.
pub(crate) struct Core {
    /// What the last operations decided, in order. The caller takes it.
    pub(crate) actions: Vec<Action>,
    pub(crate) counts: Counts,
    settings: Settings,
    /// Milliseconds on a clock that never goes back; set by the caller.
    now: u64,
    exchanges: Arena<Exchange>,
    exchange_names: HashMap<Arc<str>, ExchangeKey>,
    queues: Arena<Queue>,
    queue_names: HashMap<Arc<str>, QueueKey>,
    connections: Arena<Connection>,
    channels: Arena<Channel>,
    consumers: Arena<Consumer>,
    tickets: Arena<Ticket>,
    /// Publishes from inside the process that wait for sinks: for how many, and whether one has refused.
    local_open: HashMap<u64, (usize, bool)>,
    memory: MemoryUse,
    /// When to look at which queue. Entries may be out of date, but none is missing.
    timers: BinaryHeap<Reverse<(u64, QueueKey)>>,
    /// Queues to look at before the operation ends.
    dirty: Vec<QueueKey>,
    /// Reused for routing, so that a publish allocates nothing.
    routed: Vec<QueueKey>,
    /// The id of the last window that was opened, over all queues.
    windows: u64,
}

impl Core {
    pub(crate) fn new(settings: Settings) -> Core {
        Core {
            actions: Vec::new(),
            counts: Counts::default(),
            settings,
            now: 0,
            exchanges: Arena::default(),
            exchange_names: HashMap::new(),
            queues: Arena::default(),
            queue_names: HashMap::new(),
            connections: Arena::default(),
            channels: Arena::default(),
            consumers: Arena::default(),
            tickets: Arena::default(),
            local_open: HashMap::new(),
            memory: MemoryUse::new(settings.memory_limit),
            timers: BinaryHeap::new(),
            dirty: Vec::new(),
            routed: Vec::new(),
            windows: 0,
        }
    }

    /// Sets the time. It never goes back.
    pub(crate) fn set_now(&mut self, now: u64) {
        self.now = self.now.max(now);
    }

    /// When [`tick`](Core::tick) must be called next.
    pub(crate) fn deadline(&self) -> Option<u64> {
        self.timers.peek().map(|it| it.0.0)
    }

    /// Expires what is due.
    pub(crate) fn tick(&mut self) {
        while let Some(Reverse((at, key))) = self.timers.peek().copied() {
            if at > self.now {
                break;
            }
            self.timers.pop();
            let Some(queue) = self.queues.get_mut(key) else { continue };
            if queue.timer == Some(at) {
                queue.timer = None;
            }
            let unused_for = self.now.saturating_sub(queue.used);
            if queue.consumers.is_empty() && queue.attributes.expires.is_some_and(|it| unused_for >= it) {
                self.drop_queue(key);
                continue;
            }
            self.touch(key);
        }
        self.run();
    }

    /// Ends every operation: delivers what can be delivered, grants credit to backings, resumes paused connections.
    pub(crate) fn run(&mut self) {
        while let Some(key) = self.dirty.pop() {
            if let Some(queue) = self.queues.get_mut(key) {
                queue.dirty = false;
                self.drain(key);
                self.grant_credit(key);
                self.arm(key);
            }
        }
        self.resume_relieved();
    }

    /// Makes [`run`](Core::run) look at this queue.
    fn touch(&mut self, key: QueueKey) {
        if let Some(queue) = self.queues.get_mut(key)
            && !queue.dirty
        {
            queue.dirty = true;
            self.dirty.push(key);
        }
    }

    /// Makes sure a timer fires when this queue needs one.
    fn arm(&mut self, key: QueueKey) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        if let Some(deadline) = queue.deadline()
            && queue.timer.is_none_or(|it| it > deadline)
        {
            queue.timer = Some(deadline);
            self.timers.push(Reverse((deadline, key)));
            if self.timers.len() > 2 * self.queues.len() + 64 {
                // Most are out of date: of deleted queues, or of earlier deadlines.
                let live = self.queues.iter().filter_map(|(key, queue)| Some(Reverse((queue.timer?, key))));
                self.timers = live.collect();
            }
        }
    }

    pub(crate) fn sizes(&self) -> Sizes {
        Sizes {
            connections: self.connections.len(),
            channels: self.channels.len(),
            consumers: self.consumers.len(),
            queues: self.queues.len(),
            exchanges: self.exchanges.len(),
            memory: self.memory.total,
            paused: self.memory.paused,
        }
    }
}

/// How many there are of everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) connections: usize,
    pub(crate) channels: usize,
    pub(crate) consumers: usize,
    pub(crate) queues: usize,
    pub(crate) exchanges: usize,
    pub(crate) memory: usize,
    pub(crate) paused: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings { memory_limit: 1 << 20, output_window: 1 << 20, delivery_limit: 20 };

    #[test]
    fn timers_of_deleted_queues_are_removed() {
        let mut core = Core::new(SETTINGS);
        let connection = core.open_connection(false);
        for number in 0..10_000u64 {
            // Deleted long before it would have expired.
            let attributes =
                Attributes { expires: Some(u64::from(u32::MAX) - number), ..Attributes::default() };
            core.declare_queue("q", connection, attributes).unwrap();
            core.run();
            core.delete_queue("q", connection, false, false).unwrap();
            core.run();
        }
        assert!(core.timers.len() < 100, "{} timers of deleted queues", core.timers.len());
        // The timers that are left still fire.
        let attributes = Attributes { expires: Some(5), ..Attributes::default() };
        core.declare_queue("q", connection, attributes).unwrap();
        core.run();
        assert_eq!(core.deadline(), Some(5));
        core.set_now(5);
        core.tick();
        assert_eq!(core.sizes().queues, 0);
    }

    #[test]
    fn an_exchange_with_many_bindings_to_one_queue_is_deleted_quickly() {
        let mut core = Core::new(SETTINGS);
        let connection = core.open_connection(false);
        core.declare_queue("q", connection, Attributes::default()).unwrap();
        let kind = crate::declaration::ExchangeKind::Direct;
        let attributes = ExchangeAttributes { kind, durable: false, auto_delete: false, internal: false };
        for name in ["x", "y"] {
            core.declare_exchange(name, attributes).unwrap();
        }
        for number in 0..50_000 {
            core.bind_queue("q", "x", &number.to_string()).unwrap();
        }
        core.bind_queue("q", "y", "k").unwrap();
        core.bind_exchange("y", "x", "k").unwrap();
        assert_eq!(core.delete_exchange("x", false), Ok(true));
        assert_eq!(core.queue("q").unwrap().bindings.len(), 1);
        let mut found = Vec::new();
        core.route("y", "k", &mut found).unwrap();
        assert_eq!(found.len(), 1);
    }
}
