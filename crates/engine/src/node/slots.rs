//! Which worker gets which task: the node's decisions, without IO.
//!
//! ```text
//! starting --ready--> idle --task--> busy --ended--> idle, or busy with the next that was prefetched
//!    │ \__________________\______________\--died--> starting (a fresh one)
//!    └──died too often before it was ready, or not ready in time──> closed
//! ```
//!
//! A slot whose worker does not start is closed; the others go on. When all are closed, the node gives up.
//!
//! A worker that ends tasks quickly gets some prefetched into its socket, so that it does not wait for the node after
//! each. The node takes unread ones back when the worker becomes slow, when another one is idle, and when the worker
//! dies. A task that the worker has read stays with it.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use wire::TaskId;

use crate::throughput::Throughput;

/// A slot is closed after this many failed starts in a row.
const MAX_FAILED_STARTS: u32 = 3;

/// A worker gets as many tasks prefetched as it ends in this fraction of a throughput window: 2.5 ms.
const PREFETCH_DIVISOR: u32 = 4;

/// The most tasks that are prefetched to one worker.
const MAX_PREFETCHED: usize = 32;

/// A worker that runs one task for longer is slow: its prefetched tasks go to others.
const STALLED: Duration = Duration::from_millis(5);

#[derive(Debug)]
enum WorkerState {
    /// `failed` starts came before this one, which began at `since`.
    Starting {
        failed: u32,
        since: Duration,
    },
    Ready(ReadyWorker),
    /// The slot is closed.
    Closed,
}

#[derive(Debug, Default)]
struct ReadyWorker {
    /// The task it runs, then the prefetched ones. Empty when the worker is idle.
    assigned: VecDeque<TaskId>,
    /// Whether its only task is too large to be taken back.
    large: bool,
    /// Whether it is being killed. The task that it runs is reported as lost after its exit.
    being_killed: bool,
    /// How many tasks it has ended.
    ran: u32,
    /// When the first of these tasks began, as far as the node knows.
    since: Duration,
    throughput: Throughput,
}

/// What the slots decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step<T> {
    /// Write this task to this worker.
    Give { rank: u32, task: T },
    /// Take back the tasks that this worker has not read, and pass them to [`Slots::requeue_unread`].
    TakeBack { rank: u32 },
    /// Kill this worker; [`Slots::record_exit`] follows.
    Kill { rank: u32 },
    /// Start a fresh worker on this slot.
    Start { rank: u32 },
    /// Tell the engine that this task was lost with its worker.
    Lost { rank: u32, task: TaskId },
    /// Tell the engine that this slot is closed: its worker does not start.
    Close { rank: u32 },
    /// Every slot is closed; this one was the last.
    GiveUp { rank: u32 },
}

/// A task that can wait for a worker.
pub(crate) trait SlotTask {
    fn id(&self) -> TaskId;
    /// Whether it is too large to be prefetched.
    fn is_large(&self) -> bool;
}

/// The node's slots and the tasks that wait for one.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    workers: Vec<WorkerState>,
    /// The last worker to become idle gets the next task: its caches are warm, and the others stay small.
    idle: Vec<u32>,
    waiting: VecDeque<T>,
    /// How many tasks are prefetched, to all workers together.
    prefetched: usize,
    /// How many tasks each worker may run.
    max_tasks: Option<u32>,
    steps: VecDeque<Step<T>>,
}

impl<T: SlotTask> Slots<T> {
    /// Slots for `count` workers, each replaced after `max_tasks` tasks.
    pub(crate) fn new(count: u32, max_tasks: Option<u32>) -> Self {
        let starting = |_| WorkerState::Starting { failed: 0, since: Duration::ZERO };
        let workers = (0..count).map(starting).collect();
        let (waiting, steps) = (VecDeque::new(), VecDeque::new());
        Self { workers, idle: Vec::new(), waiting, prefetched: 0, max_tasks, steps }
    }

    /// The next step that follows from the inputs so far. The caller takes all of them after each input.
    pub(crate) fn next_step(&mut self) -> Option<Step<T>> {
        self.steps.pop_front()
    }

    pub(crate) fn add_task(&mut self, task: T, now: Duration) {
        self.waiting.push_back(task);
        self.serve_idle(now);
    }

    pub(crate) fn record_ready(&mut self, rank: u32, now: Duration) {
        if self.is_starting(rank)
            && let Some(worker) = self.workers.get_mut(rank as usize)
        {
            *worker = WorkerState::Ready(ReadyWorker::default());
            self.idle.push(rank);
            self.serve_idle(now);
            self.rebalance();
        }
    }

    /// Records that a worker has answered. Returns whether it was running this task.
    pub(crate) fn record_end(&mut self, rank: u32, id: TaskId, now: Duration) -> bool {
        let Some(WorkerState::Ready(ready)) = self.workers.get_mut(rank as usize) else { return false };
        if ready.assigned.front() != Some(&id) {
            return false;
        }
        ready.assigned.pop_front();
        ready.large = false;
        ready.since = now;
        ready.throughput.record_end(now);
        ready.ran += 1;
        if self.max_tasks.is_some_and(|most| ready.ran >= most) && !ready.being_killed {
            ready.being_killed = true;
            self.steps.push_back(Step::Kill { rank });
        }
        if !ready.assigned.is_empty() {
            self.prefetched -= 1;
        } else if !ready.being_killed {
            self.idle.push(rank);
            self.serve_idle(now);
        }
        self.prefetch(rank, now);
        self.rebalance();
        true
    }

    /// Records that a worker has ended, with every process it had started. `unread` are the tasks that it never read.
    pub(crate) fn record_exit(&mut self, rank: u32, unread: Vec<T>, now: Duration) {
        self.put_back(rank, unread);
        let Some(worker) = self.workers.get_mut(rank as usize) else { return };
        match std::mem::replace(worker, WorkerState::Starting { failed: 0, since: now }) {
            WorkerState::Ready(ready) => {
                self.idle.retain(|idle| *idle != rank);
                self.prefetched -= ready.assigned.len().saturating_sub(1);
                // At most one: the task that it had read.
                self.steps.extend(ready.assigned.into_iter().map(|task| Step::Lost { rank, task }));
                self.steps.push_back(Step::Start { rank });
            }
            WorkerState::Starting { failed, .. } if failed + 1 < MAX_FAILED_STARTS => {
                *worker = WorkerState::Starting { failed: failed + 1, since: now };
                self.steps.push_back(Step::Start { rank });
            }
            WorkerState::Starting { .. } => {
                *worker = WorkerState::Closed;
                let last = self.open_count() == 0;
                self.steps.push_back(if last { Step::GiveUp { rank } } else { Step::Close { rank } });
            }
            WorkerState::Closed => *worker = WorkerState::Closed,
        }
        self.serve_idle(now);
    }

    /// Whether this slot waits for its worker to be ready.
    pub(crate) fn is_starting(&self, rank: u32) -> bool {
        let worker = self.workers.get(rank as usize);
        matches!(worker, Some(WorkerState::Starting { failed, .. }) if *failed < MAX_FAILED_STARTS)
    }

    /// How many slots are not closed.
    pub(crate) fn open_count(&self) -> u32 {
        self.workers.iter().map(|worker| u32::from(!matches!(worker, WorkerState::Closed))).sum()
    }

    /// Kills workers that have been starting for longer than `limit`, and returns their ranks. Their slots get
    /// closed.
    pub(crate) fn end_overdue(&mut self, limit: Duration, now: Duration) -> Vec<u32> {
        let mut overdue = Vec::new();
        for (worker, rank) in self.workers.iter_mut().zip(0..) {
            if let WorkerState::Starting { failed, since } = worker
                && *failed < MAX_FAILED_STARTS
                && now.saturating_sub(*since) > limit
            {
                *failed = MAX_FAILED_STARTS;
                self.steps.push_back(Step::Kill { rank });
                overdue.push(rank);
            }
        }
        overdue
    }

    /// Puts the tasks that this worker had not read back at the head of the queue.
    pub(crate) fn requeue_unread(&mut self, rank: u32, unread: Vec<T>, now: Duration) {
        self.put_back(rank, unread);
        if let Some(WorkerState::Ready(ready)) = self.workers.get(rank as usize)
            && ready.assigned.is_empty()
            && !ready.being_killed
            && !self.idle.contains(&rank)
        {
            self.idle.push(rank);
        }
        self.serve_idle(now);
    }

    fn put_back(&mut self, rank: u32, unread: Vec<T>) {
        let Some(WorkerState::Ready(ready)) = self.workers.get_mut(rank as usize) else { return };
        let before = ready.assigned.len().saturating_sub(1);
        for task in unread.into_iter().rev() {
            if let Some(at) = ready.assigned.iter().rposition(|assigned| *assigned == task.id()) {
                ready.assigned.remove(at);
                self.waiting.push_front(task);
            }
        }
        self.prefetched -= before - ready.assigned.len().saturating_sub(1);
    }

    /// The workers with prefetched tasks. The caller takes these back before [`Self::abandon`] and
    /// [`Self::drain_waiting`], which must know which tasks have begun.
    pub(crate) fn workers_with_prefetched(&self) -> Vec<u32> {
        let ranks = 0..self.workers.len() as u32;
        if self.prefetched == 0 {
            return Vec::new();
        }
        ranks.filter(|rank| self.assigned(*rank) > 1).collect()
    }

    /// Drops a task that no worker has begun; one that has begun goes on.
    pub(crate) fn drop_waiting(&mut self, id: TaskId) -> bool {
        let Some(index) = self.waiting.iter().position(|waiting| waiting.id() == id) else { return false };
        self.waiting.remove(index);
        self.steps.push_back(Step::Lost { rank: 0, task: id });
        true
    }

    /// Ends a task that the engine does not want any more.
    pub(crate) fn abandon(&mut self, id: TaskId) {
        if self.drop_waiting(id) {
            return;
        }
        // Of the tasks that can't be taken back, the worker runs the last; the results of the others are on their
        // way.
        for (worker, rank) in self.workers.iter_mut().zip(0..) {
            if let WorkerState::Ready(ready) = worker
                && ready.assigned.back() == Some(&id)
            {
                ready.being_killed = true;
                self.steps.push_back(Step::Kill { rank });
            }
        }
    }

    /// Whether tasks wait or are prefetched: then results may be held and sent together.
    pub(crate) fn has_backlog(&self) -> bool {
        self.prefetched > 0 || !self.waiting.is_empty()
    }

    /// Takes out all waiting tasks, which go back to the engine.
    pub(crate) fn drain_waiting(&mut self) -> Vec<TaskId> {
        self.waiting.drain(..).map(|task| task.id()).collect()
    }

    /// How soon to check for slow workers, if any task is prefetched.
    pub(crate) fn time_to_stall_check(&self) -> Option<Duration> {
        (self.prefetched > 0).then_some(STALLED)
    }

    /// Takes prefetched tasks back from slow workers.
    pub(crate) fn take_back_from_stalled(&mut self, now: Duration) {
        for rank in self.workers_with_prefetched() {
            if let Some(WorkerState::Ready(ready)) = self.workers.get(rank as usize)
                && now.saturating_sub(ready.since) >= STALLED
            {
                self.steps.push_back(Step::TakeBack { rank });
            }
        }
    }

    fn assigned(&self, rank: u32) -> usize {
        match self.workers.get(rank as usize) {
            Some(WorkerState::Ready(ready)) => ready.assigned.len(),
            _ => 0,
        }
    }

    /// Gives waiting tasks to idle workers.
    fn serve_idle(&mut self, now: Duration) {
        while !self.waiting.is_empty() {
            let Some(rank) = self.idle.pop() else { return };
            self.hand_over(rank, now);
        }
    }

    /// Prefetches tasks to a quick worker, and leaves the other workers theirs.
    fn prefetch(&mut self, rank: u32, now: Duration) {
        let Some(WorkerState::Ready(ready)) = self.workers.get(rank as usize) else { return };
        let ahead = (ready.throughput.recent(now) / PREFETCH_DIVISOR) as usize;
        let ahead = ahead.min(MAX_PREFETCHED).min(self.waiting.len() / self.workers.len().max(1));
        let left = self.max_tasks.map_or(usize::MAX, |most| most.saturating_sub(ready.ran) as usize);
        if ready.large || ready.being_killed {
            return;
        }
        for _ in ready.assigned.len()..left.min(ahead + 1) {
            if self.waiting.front().is_none_or(SlotTask::is_large) {
                return;
            }
            self.hand_over(rank, now);
        }
    }

    fn hand_over(&mut self, rank: u32, now: Duration) {
        let Some(WorkerState::Ready(ready)) = self.workers.get_mut(rank as usize) else { return };
        let Some(task) = self.waiting.pop_front() else { return };
        if ready.assigned.is_empty() {
            ready.since = now;
        } else {
            self.prefetched += 1;
        }
        ready.large = task.is_large();
        ready.assigned.push_back(task.id());
        self.steps.push_back(Step::Give { rank, task });
    }

    /// Takes prefetched tasks back when another worker is idle.
    fn rebalance(&mut self) {
        if self.prefetched == 0 || self.idle.is_empty() {
            return;
        }
        let most = (0..self.workers.len() as u32).max_by_key(|rank| self.assigned(*rank));
        if let Some(rank) = most {
            self.steps.push_back(Step::TakeBack { rank });
        }
    }
}
