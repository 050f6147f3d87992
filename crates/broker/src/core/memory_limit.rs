//! The memory limit: counts what messages take, and pauses the connections that publish into the largest queues.
//!
//! Above the limit, a connection is paused by its next publish into a queue that holds at least half of the average.
//! Publishers into small or drained queues go on: a flood to a consumer that never reads pauses only the flood. A paused
//! connection is not read. It is resumed when its queues hold half of what they held, or when the total is well below the
//! limit.

use super::{Action, ConnectionKey, Core, Output, QueueKey};

#[derive(Default)]
pub(crate) struct MemoryUse {
    pub(crate) limit: usize,
    pub(crate) total: usize,
    /// How many queues hold anything.
    holders: usize,
    /// Queues for which connections are paused.
    pausing: Vec<QueueKey>,
    /// Those of them that may have drained enough to resume the connections.
    relieved: Vec<QueueKey>,
    /// How many connections are paused.
    pub(crate) paused: usize,
}

impl MemoryUse {
    pub(super) fn new(limit: usize) -> MemoryUse {
        MemoryUse { limit, ..MemoryUse::default() }
    }

    /// Whether the total is well below the limit.
    fn calm(&self) -> bool {
        self.total <= self.limit / 5 * 4
    }
}

impl Core {
    pub(super) fn hold(&mut self, queue: QueueKey, weight: usize) {
        if let Some(queue) = self.queues.get_mut(queue) {
            self.memory.holders += usize::from(queue.held == 0);
            queue.held += weight;
            self.memory.total += weight;
        }
    }

    pub(super) fn release(&mut self, key: QueueKey, weight: usize) {
        if let Some(queue) = self.queues.get_mut(key) {
            let weight = weight.min(queue.held);
            queue.held -= weight;
            self.memory.holders -= usize::from(queue.held == 0 && weight > 0);
            self.memory.total -= weight;
            if !queue.paused.is_empty() && queue.held <= queue.relief {
                self.memory.relieved.push(key);
            }
        }
    }

    /// Releases everything that a queue holds, and resumes the connections that are paused for it.
    pub(super) fn release_all(&mut self, key: QueueKey) {
        if let Some(held) = self.queues.get(key).map(|it| it.held) {
            self.release(key, held);
            self.relieve(key);
        }
    }

    /// Pauses a connection that published into this queue, if the queue is one of those that hold too much.
    pub(super) fn consider_pause(&mut self, connection: ConnectionKey, key: QueueKey) {
        if self.memory.total <= self.memory.limit {
            return;
        }
        let Some(queue) = self.queues.get_mut(key) else { return };
        let share = self.memory.total / (2 * self.memory.holders.max(1));
        let overdone = self.memory.total > 2 * self.memory.limit && queue.held > 0;
        if queue.held < share && !overdone {
            return;
        }
        let Some(client) = self.connections.get_mut(connection) else { return };
        if client.local || queue.paused.contains(&connection) {
            return;
        }
        if queue.paused.is_empty() {
            queue.relief = queue.held / 2;
            self.memory.pausing.push(key);
        }
        queue.paused.push(connection);
        client.paused_for += 1;
        if client.paused_for == 1 {
            self.memory.paused += 1;
            self.actions.push(Action::Send(connection, Output::Blocked(true)));
        }
    }

    /// Resumes the connections whose queues have drained enough.
    pub(super) fn resume_relieved(&mut self) {
        if self.memory.pausing.is_empty() {
            return;
        }
        if self.memory.calm() {
            for queue in std::mem::take(&mut self.memory.pausing) {
                self.relieve(queue);
            }
            self.memory.relieved.clear();
        }
        while let Some(queue) = self.memory.relieved.pop() {
            self.relieve(queue);
        }
    }

    fn relieve(&mut self, key: QueueKey) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        let paused = std::mem::take(&mut queue.paused);
        if paused.is_empty() {
            return;
        }
        self.memory.pausing.retain(|it| *it != key);
        for connection in paused {
            let Some(client) = self.connections.get_mut(connection) else { continue };
            client.paused_for -= 1;
            if client.paused_for == 0 {
                self.memory.paused -= 1;
                self.actions.push(Action::Send(connection, Output::Blocked(false)));
                self.actions.push(Action::Resume(connection));
            }
        }
    }

    pub(crate) fn is_paused(&self, connection: ConnectionKey) -> bool {
        self.connections.get(connection).is_some_and(|it| it.paused_for > 0)
    }
}
