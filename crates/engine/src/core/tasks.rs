//! Tasks in the core: where each one is, and the order in which they wait.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use wire::TaskId;

use super::error_texts::{AttemptFailure, NodeName};
use super::nodes::NodeKey;

/// Tasks with a lower number go first, tasks without a priority last.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Priority(pub(crate) Option<f64>);

impl Ord for Priority {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.0, other.0) {
            (Some(mine), Some(theirs)) => mine.total_cmp(&theirs),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        }
    }
}

impl PartialOrd for Priority {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Priority {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Priority {}

/// Whether the endpoint's journal says that the task has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BeginRecord {
    None,
    /// The endpoint was asked to, and has not answered yet.
    Requested,
    /// The task may be sent, and can't be handed back any more.
    Confirmed,
}

/// Where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TaskHolder {
    Waiting,
    /// A node is chosen; the task is sent once the endpoint has journaled it.
    Assigned(NodeKey),
    Sent(NodeKey),
}

#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) order: (Priority, u64),
    pub(crate) begun: BeginRecord,
    pub(crate) holder: TaskHolder,
    pub(crate) cancelled: bool,
    /// When this attempt was submitted.
    pub(crate) began: Duration,
    /// The attempts that failed.
    pub(crate) failed_attempts: Vec<AttemptFailure>,
    /// The node it was last given to.
    pub(crate) node: Option<Arc<NodeName>>,
}

/// All tasks that have not ended.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    all: HashMap<TaskId, Task>,
    waiting: BTreeMap<(Priority, u64), TaskId>,
    accepted: u64,
}

impl Tasks {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many were ever accepted.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Adds a task; returns false if it is here already.
    pub(crate) fn add(&mut self, id: TaskId, priority: Priority, now: Duration) -> bool {
        if self.all.contains_key(&id) {
            return false;
        }
        let order = (priority, self.accepted);
        self.accepted += 1;
        let task = Task {
            order,
            begun: BeginRecord::None,
            holder: TaskHolder::Waiting,
            cancelled: false,
            began: now,
            failed_attempts: Vec::new(),
            node: None,
        };
        self.all.insert(id, task);
        self.waiting.insert(order, id);
        true
    }

    pub(crate) fn get(&self, id: TaskId) -> Option<&Task> {
        self.all.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: TaskId) -> Option<&mut Task> {
        self.all.get_mut(&id)
    }

    /// Takes the next task out of the queue.
    pub(crate) fn pop_waiting(&mut self) -> Option<(TaskId, &mut Task)> {
        let (_, id) = self.waiting.pop_first()?;
        Some((id, self.all.get_mut(&id)?))
    }

    /// Puts a task back at its old place in the queue.
    pub(crate) fn requeue(&mut self, id: TaskId) {
        if let Some(task) = self.all.get_mut(&id) {
            task.holder = TaskHolder::Waiting;
            self.waiting.insert(task.order, id);
        }
    }

    pub(crate) fn remove(&mut self, id: TaskId) -> Option<Task> {
        let task = self.all.remove(&id)?;
        if task.holder == TaskHolder::Waiting {
            self.waiting.remove(&task.order);
        }
        Some(task)
    }

    /// The ids of tasks that `wanted` picks, in their order.
    pub(crate) fn select(&self, wanted: impl Fn(&Task) -> bool) -> Vec<TaskId> {
        let mut found: Vec<_> =
            self.all.iter().filter(|(_, task)| wanted(task)).map(|(id, task)| (task.order, *id)).collect();
        found.sort_unstable();
        found.into_iter().map(|(_, id)| id).collect()
    }
}
