//! The scheduling core: decides which task goes to which node, and when blocks are requested.
//!
//! ```text
//! waiting --node with room--> assigned --the endpoint has journaled it--> sent --result--> ended
//!    ▲                           │                                      │
//!    ├──── node lost ────────────┘                                      │
//!    └──── lost, and a retry is allowed ◄───────────────────────────────┤
//!                                                                       └── lost --> ended
//! ```
//!
//! The core gets inputs with their times, and returns actions. It does no IO and reads no clock. The driver passes a
//! batch of inputs to [`Core::handle`] and then calls [`Core::settle`] once.

mod action;
mod blocks;
mod endings;
mod error_texts;
mod input;
mod nodes;
mod tasks;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use wire::TaskId;

pub(crate) use action::Action;
pub(crate) use blocks::{BlockEnd, ExitReport, ScalingRules, ScalingStrategy};
pub(crate) use error_texts::{AttemptFailure, NodeName, TaskFailure};
pub(crate) use input::Input;
pub(crate) use nodes::NodeKey;
pub(crate) use tasks::Priority;

use blocks::{Blocks, ScalingStep};
use nodes::Nodes;
use tasks::{BeginRecord, TaskHolder, Tasks};

/// The rules that the core decides by.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) max_retries: u32,
    pub(crate) prefetch: u32,
    pub(crate) heartbeat_period: Duration,
    pub(crate) heartbeat_threshold: Duration,
    /// After this time a node takes no more tasks, and is dropped once it is idle.
    pub(crate) drain_period: Option<Duration>,
    /// The engine's name in the error text of bad state.
    pub(crate) executor: Arc<str>,
    pub(crate) scaling: ScalingRules,
}

#[derive(Clone, Debug, PartialEq)]
enum Phase {
    Running,
    BadState { cause: Arc<str> },
    Stopping { until: Duration },
    Stopped,
}

/// Counts for the engine's report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TaskCounts {
    pub(crate) slots: u64,
    pub(crate) busy: u64,
    pub(crate) waiting: usize,
    pub(crate) outstanding: usize,
    pub(crate) accepted: u64,
}

pub(crate) struct Core {
    rules: Rules,
    phase: Phase,
    tasks: Tasks,
    nodes: Nodes,
    /// Nodes whose first worker is starting: the block of each, and the time of its last frame.
    starting: BTreeMap<NodeKey, (u32, Duration)>,
    blocks: Blocks,
    next_sweep: Duration,
    /// When to check whether a node has more tasks than it can begin.
    next_recall_check: Option<Duration>,
    /// When each node begins to drain.
    drains: BTreeSet<(Duration, NodeKey)>,
    draining: BTreeSet<NodeKey>,
}

impl Core {
    pub(crate) fn new(rules: Rules) -> Self {
        let nodes = Nodes::new(rules.prefetch);
        let blocks = Blocks::new(rules.scaling);
        let next_sweep = rules.heartbeat_period;
        Self {
            rules,
            phase: Phase::Running,
            tasks: Tasks::default(),
            nodes,
            starting: BTreeMap::new(),
            blocks,
            next_sweep,
            next_recall_check: None,
            drains: BTreeSet::new(),
            draining: BTreeSet::new(),
        }
    }

    /// When [`Input::Tick`] should come at the latest.
    pub(crate) fn wake_at(&self) -> Option<Duration> {
        match self.phase {
            Phase::Stopped => None,
            Phase::Stopping { until } => Some(until),
            Phase::Running | Phase::BadState { .. } => {
                let idle = self.blocks.idle_until(self.tasks.len());
                let drain = self.drains.first().map(|(at, _)| *at);
                let sweep = (self.nodes.len() + self.starting.len() > 0).then_some(self.next_sweep);
                idle.into_iter().chain(drain).chain(sweep).chain(self.next_recall_check).min()
            }
        }
    }

    pub(crate) fn counts(&self) -> TaskCounts {
        let (slots, busy) = self.nodes.slots();
        TaskCounts {
            slots,
            busy,
            waiting: self.tasks.waiting(),
            outstanding: self.tasks.len(),
            accepted: self.tasks.accepted(),
        }
    }

    /// The report on the last block that failed.
    pub(crate) fn last_block_failure(&self) -> Option<String> {
        self.blocks.last_failure()
    }

    /// Whether a block that was asked for is still wanted.
    pub(crate) fn wants_block(&self, block: u32) -> bool {
        self.blocks.is_live(block)
    }

    /// The number of nodes that have connected and whose first worker is not ready yet.
    pub(crate) fn starting_count(&self) -> usize {
        self.starting.len()
    }

    /// Each node's block, slots, and since when it has been idle.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (NodeKey, u32, u32, Option<Duration>)> {
        self.nodes.iter().map(|(key, node)| (key, node.block, node.slots, node.idle_since))
    }

    /// Handles one input and settles.
    #[cfg(test)]
    pub(crate) fn apply(&mut self, input: Input, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        self.handle(input, now, &mut actions);
        self.settle(now, &mut actions);
        actions
    }

    /// Handles one input. What it allows for other tasks is left to [`Self::settle`].
    pub(crate) fn handle(&mut self, input: Input, now: Duration, actions: &mut Vec<Action>) {
        if self.phase == Phase::Stopped {
            return;
        }
        match input {
            Input::Started => {
                let first = self.blocks.request_initial();
                push_scaling(first, actions);
            }
            Input::Submitted { task, priority } => self.accept_task(task, priority, now, actions),
            Input::Refused { task, .. } if self.tasks.get(task).is_some() => {}
            Input::Refused { task, failure } => {
                let failure = TaskFailure { attempts: vec![failure], began: now };
                actions.push(Action::Fail { task, failure });
            }
            Input::Begun(tasks) => {
                for task in tasks {
                    self.confirm_begun(task, actions);
                }
            }
            Input::Cancelled(task) => self.cancel_task(task, now, actions),
            Input::BlockEnded { block, end } => self.blocks.record_job_end(block, end),
            Input::NodeStarting { node, block } => {
                if self.blocks.is_live(block) {
                    self.starting.insert(node, (block, now));
                } else {
                    actions.push(Action::DropNode(node));
                }
            }
            Input::NodeJoined { node, block, name, slots } => {
                self.starting.remove(&node);
                if self.blocks.is_live(block) && slots > 0 {
                    self.blocks.record_node(block);
                    self.nodes.add(node, Arc::new(name), block, slots, now);
                    self.drains.extend(self.rules.drain_period.map(|period| (now + period, node)));
                } else {
                    actions.push(Action::DropNode(node));
                }
            }
            Input::NodeResized { node, slots } => {
                self.nodes.record_contact(node, now);
                self.nodes.resize(node, slots);
            }
            Input::NodeHeartbeat(node) => {
                self.nodes.record_contact(node, now);
                if let Some((_, heard)) = self.starting.get_mut(&node) {
                    *heard = now;
                }
            }
            Input::NodeLost(node) => self.remove_node(node, now, actions),
            Input::TaskEnded { node, task } => {
                self.nodes.record_contact(node, now);
                if self.is_sent_to(task, node) {
                    self.nodes.unassign(node, task, true, now);
                    self.blocks.record_result();
                    self.tasks.remove(task);
                    actions.push(Action::Deliver(task));
                }
            }
            Input::WorkerLost { node, task, rank, hint } => {
                self.nodes.record_contact(node, now);
                if self.is_sent_to(task, node) {
                    self.nodes.unassign(node, task, false, now);
                    if let Some(name) = self.nodes.get(node).map(|node| Arc::clone(&node.name)) {
                        self.retry_or_fail(
                            task,
                            AttemptFailure::WorkerLost { rank, node: name, hint },
                            now,
                            actions,
                        );
                    }
                }
            }
            Input::Unstarted { node, tasks } => {
                self.nodes.record_contact(node, now);
                self.nodes.record_recall_answer(node);
                for task in tasks {
                    if self.is_sent_to(task, node) {
                        self.nodes.unassign(node, task, false, now);
                        self.return_to_queue(task, actions);
                    }
                }
            }
            Input::Stop { grace } => self.stop(now + grace, actions),
            Input::Tick => {}
        }
    }

    /// Decides what follows from the inputs so far: dispatch, scaling, bad state, the end of a stop.
    pub(crate) fn settle(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if now >= self.next_sweep {
            self.next_sweep = now + self.rules.heartbeat_period;
            self.drop_silent_nodes(now, actions);
        }
        self.check_bad_state(actions);
        match self.phase {
            Phase::Running => {
                self.drain(now, actions);
                let step = self.blocks.scale(self.tasks.len(), self.draining.len(), now);
                self.apply_scaling(step, now, actions);
                self.release_idle_blocks(now, actions);
                self.dispatch(now, actions);
                self.recall_from_slow_node(now, actions);
            }
            Phase::Stopping { until } => {
                self.dispatch(now, actions);
                if now >= until {
                    self.fail_unfinished(actions);
                }
                if self.tasks.len() == 0 {
                    self.phase = Phase::Stopped;
                    push_scaling(self.blocks.release_all(), actions);
                    actions.push(Action::Finish);
                }
            }
            Phase::BadState { .. } | Phase::Stopped => {}
        }
    }

    fn apply_scaling(&mut self, step: ScalingStep, now: Duration, actions: &mut Vec<Action>) {
        if let ScalingStep::Cancel(blocks) = &step {
            self.drop_nodes_of(blocks, now, actions);
        }
        push_scaling(step, actions);
    }

    /// Releases idle blocks while others work, if the strategy says so.
    fn release_idle_blocks(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Some(most) = self.blocks.count_surplus(self.tasks.len(), now) else { return };
        let mut idle = self.nodes.idle_blocks(self.blocks.max_idle(), now);
        idle.truncate(most);
        let step = self.blocks.release(idle);
        self.apply_scaling(step, now, actions);
    }

    /// Drains nodes whose time is nearly over: they get no new tasks, give back those they have not begun, and are
    /// dropped once idle.
    fn drain(&mut self, now: Duration, actions: &mut Vec<Action>) {
        while let Some(&(at, key)) = self.drains.first() {
            if at > now {
                break;
            }
            self.drains.pop_first();
            let Some(tasks) = self.nodes.drain(key) else { continue };
            self.draining.insert(key);
            let (assigned, sent): (Vec<_>, Vec<_>) = tasks.into_iter().partition(|id| {
                self.tasks.get(*id).is_some_and(|task| task.holder == TaskHolder::Assigned(key))
            });
            for id in assigned {
                self.nodes.unassign(key, id, false, now);
                self.tasks.requeue(id);
            }
            if !sent.is_empty() {
                self.nodes.record_recall(key);
                actions.push(Action::Recall(key));
            }
        }
        let idle = |key: &NodeKey| self.nodes.get(*key).is_none_or(|node| node.tasks.is_empty());
        let gone: Vec<_> = self.draining.iter().copied().filter(idle).collect();
        for key in gone {
            self.draining.remove(&key);
            if self.nodes.remove(key).is_some() {
                actions.push(Action::DropNode(key));
            }
        }
    }

    fn is_sent_to(&self, task: TaskId, node: NodeKey) -> bool {
        self.tasks.get(task).is_some_and(|task| task.holder == TaskHolder::Sent(node))
    }

    fn accept_task(&mut self, task: TaskId, priority: Priority, now: Duration, actions: &mut Vec<Action>) {
        match &self.phase {
            Phase::Running => {
                self.tasks.add(task, priority, now);
            }
            Phase::BadState { cause } => {
                let attempts = vec![AttemptFailure::SubmittedInBadState { cause: Arc::clone(cause) }];
                actions.push(Action::Fail { task, failure: TaskFailure { attempts, began: now } });
            }
            Phase::Stopping { .. } | Phase::Stopped => actions.push(Action::Return(vec![task])),
        }
    }

    fn confirm_begun(&mut self, id: TaskId, actions: &mut Vec<Action>) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        if task.begun != BeginRecord::Requested {
            return;
        }
        task.begun = BeginRecord::Confirmed;
        if let TaskHolder::Assigned(node) = task.holder {
            task.holder = TaskHolder::Sent(node);
            actions.push(Action::Send { node, task: id });
        }
    }

    fn cancel_task(&mut self, id: TaskId, now: Duration, actions: &mut Vec<Action>) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        match task.holder {
            TaskHolder::Sent(node) if !task.cancelled => {
                task.cancelled = true;
                actions.push(Action::Abandon { node, task: id });
            }
            TaskHolder::Sent(_) => {}
            TaskHolder::Assigned(node) => {
                self.nodes.unassign(node, id, false, now);
                self.tasks.remove(id);
                actions.push(Action::Cancel(id));
            }
            TaskHolder::Waiting => {
                self.tasks.remove(id);
                actions.push(Action::Cancel(id));
            }
        }
    }

    fn remove_node(&mut self, key: NodeKey, now: Duration, actions: &mut Vec<Action>) {
        self.starting.remove(&key);
        let Some(node) = self.nodes.remove(key) else { return };
        let mut tasks: Vec<_> = node.tasks.into_iter().collect();
        tasks.sort_unstable_by_key(|id| self.tasks.get(*id).map(|task| task.order));
        for id in tasks {
            match self.tasks.get(id).map(|task| task.holder) {
                Some(TaskHolder::Sent(_)) => self.retry_or_fail(
                    id,
                    AttemptFailure::NodeLost { node: Arc::clone(&node.name) },
                    now,
                    actions,
                ),
                Some(TaskHolder::Assigned(_)) => self.tasks.requeue(id),
                Some(TaskHolder::Waiting) | None => {}
            }
        }
    }

    fn dispatch(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let mut asked = Vec::new();
        while self.tasks.waiting() > 0 {
            let Some(key) = self.nodes.choose(now) else { break };
            let Some(name) = self.nodes.get(key).map(|node| Arc::clone(&node.name)) else { break };
            for _ in 0..self.nodes.batch_size(key, self.tasks.waiting()) {
                let Some((id, task)) = self.tasks.pop_waiting() else { break };
                debug_assert!(
                    self.phase == Phase::Running || task.begun != BeginRecord::None,
                    "what has not begun was returned"
                );
                task.node = Some(Arc::clone(&name));
                task.holder = match task.begun {
                    BeginRecord::Confirmed => {
                        actions.push(Action::Send { node: key, task: id });
                        TaskHolder::Sent(key)
                    }
                    BeginRecord::Requested => TaskHolder::Assigned(key),
                    BeginRecord::None => {
                        task.begun = BeginRecord::Requested;
                        asked.push(id);
                        TaskHolder::Assigned(key)
                    }
                };
                self.nodes.assign(key, id);
            }
        }
        if !asked.is_empty() {
            actions.push(Action::Assign(asked));
        }
    }

    /// Recalls the tasks that a slow node has not begun, when nothing waits and other nodes have free slots.
    fn recall_from_slow_node(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.next_recall_check = match self.nodes.find_overcommitted(now) {
            Ok(node) => {
                self.nodes.record_recall(node);
                actions.push(Action::Recall(node));
                None
            }
            Err(later) => later,
        };
    }

    fn drop_silent_nodes(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let deadline = self.rules.heartbeat_threshold;
        let starting = self.starting.iter().map(|(key, (_, heard))| (*key, *heard));
        let mut silent: Vec<_> = (self.nodes.iter().map(|(key, node)| (key, node.last_contact)))
            .chain(starting)
            .filter(|(_, heard)| now.saturating_sub(*heard) > deadline)
            .map(|(key, _)| key)
            .collect();
        silent.sort_unstable();
        for key in silent {
            self.remove_node(key, now, actions);
            actions.push(Action::DropNode(key));
        }
    }

    fn drop_nodes_of(&mut self, blocks: &[u32], now: Duration, actions: &mut Vec<Action>) {
        let starting = self.starting.iter().map(|(key, (block, _))| (*key, *block));
        let mut nodes: Vec<_> = (self.nodes.iter().map(|(key, node)| (key, node.block)))
            .chain(starting)
            .filter(|(_, block)| blocks.contains(block))
            .map(|(key, _)| key)
            .collect();
        nodes.sort_unstable();
        for key in nodes {
            self.remove_node(key, now, actions);
            actions.push(Action::DropNode(key));
        }
    }
}

fn push_scaling(step: ScalingStep, actions: &mut Vec<Action>) {
    match step {
        ScalingStep::Nothing => {}
        ScalingStep::Submit(blocks) => actions.push(Action::SubmitBlocks(blocks)),
        ScalingStep::Cancel(blocks) => actions.push(Action::CancelBlocks(blocks)),
    }
}
