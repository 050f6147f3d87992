//! Nodes in the core, and which of them gets the next task.
//!
//! A node may get more tasks than it has slots: its configured prefetch, and as many as it ended in the last
//! milliseconds. So short tasks do not wait for the link or for the endpoint's journal, and a node with long tasks
//! gets none that it can't begin at once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use wire::TaskId;

use super::error_texts::NodeName;
use crate::throughput::Throughput;

/// Identifies one connection of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeKey(pub(crate) u64);

/// Whether a node was asked to give back the tasks that no worker has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RecallState {
    None,
    /// The node has not answered yet.
    Requested,
    /// The node had nothing to give back. It may be asked again once it has ended a task or got another.
    Answered,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: Arc<NodeName>,
    pub(crate) block: u32,
    pub(crate) slots: u32,
    /// The tasks assigned or sent to it that have not ended.
    pub(crate) tasks: HashSet<TaskId>,
    pub(crate) last_contact: Duration,
    /// When it last became idle.
    pub(crate) idle_since: Option<Duration>,
    recall: RecallState,
    /// Whether it gets no new tasks.
    draining: bool,
    throughput: Throughput,
}

impl Node {
    /// Slots without a task; negative if the node has more tasks than slots.
    fn free(&self) -> i64 {
        i64::from(self.slots) - self.tasks.len() as i64
    }
}

/// The nodes that are connected.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    all: HashMap<NodeKey, Node>,
    /// By free slots, most first: a burst spreads over the nodes.
    by_room: BTreeSet<(Reverse<i64>, NodeKey)>,
    /// How many tasks the configuration allows beyond the slots.
    prefetch: u32,
    busy_slots: u64,
    slots: u64,
}

/// The most tasks that a fast node gets beyond its slots.
const MAX_PREFETCHED: u32 = 1024;

/// How many nodes are considered when all slots are taken.
const MAX_CANDIDATES: usize = 8;

impl Nodes {
    pub(crate) fn new(prefetch: u32) -> Self {
        Self { prefetch, ..Self::default() }
    }

    pub(crate) fn add(&mut self, key: NodeKey, name: Arc<NodeName>, block: u32, slots: u32, now: Duration) {
        let node = Node {
            name,
            block,
            slots,
            tasks: HashSet::new(),
            last_contact: now,
            idle_since: Some(now),
            recall: RecallState::None,
            draining: false,
            throughput: Throughput::default(),
        };
        self.slots += u64::from(slots);
        self.by_room.insert((Reverse(node.free()), key));
        self.all.insert(key, node);
    }

    /// Changes the number of slots.
    pub(crate) fn resize(&mut self, key: NodeKey, slots: u32) {
        self.change(key, |node| node.slots = slots);
    }

    pub(crate) fn remove(&mut self, key: NodeKey) -> Option<Node> {
        let node = self.all.remove(&key)?;
        self.by_room.remove(&(Reverse(node.free()), key));
        self.slots -= u64::from(node.slots);
        self.busy_slots -= u64::from(node.slots.min(node.tasks.len() as u32));
        Some(node)
    }

    pub(crate) fn get(&self, key: NodeKey) -> Option<&Node> {
        self.all.get(&key)
    }

    pub(crate) fn record_contact(&mut self, key: NodeKey, now: Duration) {
        if let Some(node) = self.all.get_mut(&key) {
            node.last_contact = now;
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeKey, &Node)> {
        self.all.iter().map(|(key, node)| (*key, node))
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// The slots of all nodes, and how many of them have a task.
    pub(crate) fn slots(&self) -> (u64, u64) {
        (self.slots, self.busy_slots)
    }

    /// How many tasks to give this node at once. If the waiting tasks fill all free slots anyway, the node's slots
    /// are filled together, so that the tasks cross the link in one write.
    pub(crate) fn batch_size(&self, key: NodeKey, waiting: usize) -> usize {
        let free = self.all.get(&key).map_or(0, Node::free);
        let plenty = waiting as u64 >= self.slots - self.busy_slots;
        usize::try_from(free).ok().filter(|free| plenty && *free > 0).unwrap_or(1)
    }

    /// The node for the next task: the one with most free slots, else one whose throughput allows more.
    pub(crate) fn choose(&self, now: Duration) -> Option<NodeKey> {
        self.by_room.iter().take(MAX_CANDIDATES).map(|(_, key)| *key).find(|key| {
            self.all.get(key).is_some_and(|node| {
                let ahead = self.prefetch.saturating_add(node.throughput.recent(now).min(MAX_PREFETCHED));
                node.free() + i64::from(ahead) > 0
            })
        })
    }

    /// Finds a node that got tasks beyond its slots and has become slow while others have free slots: those tasks
    /// should move. The error says when to check again, if that may become so.
    pub(crate) fn find_overcommitted(&self, now: Duration) -> Result<NodeKey, Option<Duration>> {
        let (Some((most, _)), Some((least, key))) = (self.by_room.first(), self.by_room.last()) else {
            return Err(None);
        };
        let Some(node) = self.all.get(key) else { return Err(None) };
        if most.0 <= 0 || least.0 >= -i64::from(self.prefetch) || node.recall != RecallState::None {
            return Err(None);
        }
        if node.throughput.recent(now) > 0 { Err(Some(node.throughput.zero_at())) } else { Ok(*key) }
    }

    pub(crate) fn record_recall(&mut self, key: NodeKey) {
        self.set_recall(key, RecallState::Requested);
    }

    pub(crate) fn record_recall_answer(&mut self, key: NodeKey) {
        self.set_recall(key, RecallState::Answered);
    }

    fn set_recall(&mut self, key: NodeKey, recall: RecallState) {
        if let Some(node) = self.all.get_mut(&key) {
            node.recall = recall;
        }
    }

    /// Gives this node no new tasks from now on, and returns those it has.
    pub(crate) fn drain(&mut self, key: NodeKey) -> Option<Vec<TaskId>> {
        let node = self.all.get_mut(&key)?;
        node.draining = true;
        self.by_room.remove(&(Reverse(node.free()), key));
        Some(node.tasks.iter().copied().collect())
    }

    /// Blocks whose nodes have all been idle for `long`, the longest idle first.
    pub(crate) fn idle_blocks(&self, long: Duration, now: Duration) -> Vec<u32> {
        let mut since = BTreeMap::new();
        for node in self.all.values() {
            let idle = node.idle_since.filter(|&since| now.saturating_sub(since) >= long);
            let least = since.entry(node.block).or_insert(idle);
            *least = (*least).zip(idle).map(|(one, other)| one.max(other));
        }
        let mut idle: Vec<_> = since.into_iter().filter_map(|(block, since)| Some((since?, block))).collect();
        idle.sort_unstable();
        idle.into_iter().map(|(_, block)| block).collect()
    }

    pub(crate) fn assign(&mut self, key: NodeKey, task: TaskId) {
        self.change(key, |node| {
            node.tasks.insert(task);
            node.idle_since = None;
        });
    }

    /// Takes a task from this node; `ended` says whether the node has ended it.
    pub(crate) fn unassign(&mut self, key: NodeKey, task: TaskId, ended: bool, now: Duration) {
        self.change(key, |node| {
            if node.tasks.remove(&task) && ended {
                node.throughput.record_end(now);
            }
            if node.tasks.is_empty() {
                node.idle_since = Some(now);
            }
        });
    }

    fn change(&mut self, key: NodeKey, change: impl FnOnce(&mut Node)) {
        let Some(node) = self.all.get_mut(&key) else { return };
        let (before, slots_before) = (node.free(), u64::from(node.slots));
        let busy = |node: &Node| u64::from(node.slots.min(node.tasks.len() as u32));
        let busy_before = busy(node);
        change(node);
        let (after, busy_after) = (node.free(), busy(node));
        self.slots = self.slots - slots_before + u64::from(node.slots);
        if before != after && node.recall == RecallState::Answered {
            node.recall = RecallState::None;
        }
        if before != after && !node.draining {
            self.by_room.remove(&(Reverse(before), key));
            self.by_room.insert((Reverse(after), key));
        }
        self.busy_slots = self.busy_slots - busy_before + busy_after;
    }
}
