//! Which worker gets which task: the node's decisions, without IO.
//!
//! ```text
//! starting --ready--> idle --task--> busy --ended--> idle, or busy with the next that was given ahead
//!    │ \__________________\______________\--died--> starting (a fresh one)
//!    └──died too often before it was ready, or not ready in time──> closed
//! ```
//!
//! A slot whose worker does not start is closed, and the others go on. When all are closed the node gives up.
//!
//! A worker that ends its tasks quickly is given some ahead: they lie in its socket, so it need not wait for the node
//! after each. What lies there unread can be taken back, and is: when the worker turns out to be slow, when another
//! one is idle, and when it dies. A task the worker has read stays its own.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use wire::TaskId;

use crate::throughput::Throughput;

/// A worker has died this often in a row before it was ready: it does not start here.
const FRUITLESS_STARTS: u32 = 3;

/// A worker is given ahead what it ends in this part of a window of its pace: 2.5 ms.
const PART_AHEAD: u32 = 4;

/// Never more than this is given ahead.
const MOST_AHEAD: usize = 32;

/// A worker that has not ended its task by then is slow, and what was given ahead goes to others.
const STALLED: Duration = Duration::from_millis(5);

#[derive(Debug)]
enum Worker {
    /// So many before it died while they were starting; this one began `since`.
    Starting {
        failed: u32,
        since: Duration,
    },
    Ready(Ready),
    /// No worker starts here.
    Closed,
}

#[derive(Debug, Default)]
struct Ready {
    /// The one it runs, and those that lie ahead. Idle when there is none.
    given: VecDeque<TaskId>,
    /// Its one task is too large to be taken back.
    bulky: bool,
    /// Killed on purpose; what it runs is reported when it is gone.
    doomed: bool,
    /// How many tasks it has ended.
    ran: u32,
    /// When the first of them began, as far as is known here.
    since: Duration,
    throughput: Throughput,
}

/// What must be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step<T> {
    /// Write this task to this worker.
    Give { rank: u32, task: T },
    /// Read back what this worker has not read, and tell [`Slots::taken_back`].
    TakeBack { rank: u32 },
    /// Kill this worker; its death will be told.
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
pub(crate) trait Burden {
    fn id(&self) -> TaskId;
    /// Whether it is too large to lie unread in a socket.
    fn is_bulky(&self) -> bool;
}

/// The node's slots and the tasks that wait for one.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    workers: Vec<Worker>,
    /// The last to become idle is the first to be busy again: its caches are warm, the others stay small.
    idle: Vec<u32>,
    waiting: VecDeque<T>,
    /// How many tasks lie ahead, at all workers.
    ahead: usize,
    /// How many tasks each may run.
    most: Option<u32>,
    steps: VecDeque<Step<T>>,
}

impl<T: Burden> Slots<T> {
    /// Slots for so many workers, each ended when it has run `most` tasks.
    pub(crate) fn new(count: u32, most: Option<u32>) -> Self {
        let starting = |_| Worker::Starting { failed: 0, since: Duration::ZERO };
        let workers = (0..count).map(starting).collect();
        let (waiting, steps) = (VecDeque::new(), VecDeque::new());
        Self { workers, idle: Vec::new(), waiting, ahead: 0, most, steps }
    }

    /// What the inputs so far lead to, in order. To be asked after each until there is no more.
    pub(crate) fn next_step(&mut self) -> Option<Step<T>> {
        self.steps.pop_front()
    }

    pub(crate) fn task_came(&mut self, task: T, now: Duration) {
        self.waiting.push_back(task);
        self.give(now);
    }

    pub(crate) fn ready(&mut self, rank: u32, now: Duration) {
        if self.is_starting(rank)
            && let Some(worker) = self.workers.get_mut(rank as usize)
        {
            *worker = Worker::Ready(Ready::default());
            self.idle.push(rank);
            self.give(now);
            self.even_out();
        }
    }

    /// A worker has answered. The task is its own when this says so.
    pub(crate) fn ended(&mut self, rank: u32, id: TaskId, now: Duration) -> bool {
        let Some(Worker::Ready(ready)) = self.workers.get_mut(rank as usize) else { return false };
        if ready.given.front() != Some(&id) {
            return false;
        }
        ready.given.pop_front();
        ready.bulky = false;
        ready.since = now;
        ready.throughput.record_end(now);
        ready.ran += 1;
        if self.most.is_some_and(|most| ready.ran >= most) && !ready.doomed {
            ready.doomed = true;
            self.steps.push_back(Step::Kill { rank });
        }
        if !ready.given.is_empty() {
            self.ahead -= 1;
        } else if !ready.doomed {
            self.idle.push(rank);
            self.give(now);
        }
        self.fill(rank, now);
        self.even_out();
        true
    }

    /// A worker is gone, and so is everything it had started. `unread` is what it never read.
    pub(crate) fn died(&mut self, rank: u32, unread: Vec<T>, now: Duration) {
        self.put_back(rank, unread);
        let Some(worker) = self.workers.get_mut(rank as usize) else { return };
        match std::mem::replace(worker, Worker::Starting { failed: 0, since: now }) {
            Worker::Ready(ready) => {
                self.idle.retain(|idle| *idle != rank);
                self.ahead -= ready.given.len().saturating_sub(1);
                // One at most: the one it had read.
                self.steps.extend(ready.given.into_iter().map(|task| Step::Lost { rank, task }));
                self.steps.push_back(Step::Start { rank });
            }
            Worker::Starting { failed, .. } if failed + 1 < FRUITLESS_STARTS => {
                *worker = Worker::Starting { failed: failed + 1, since: now };
                self.steps.push_back(Step::Start { rank });
            }
            Worker::Starting { .. } => {
                *worker = Worker::Closed;
                let last = self.open() == 0;
                self.steps.push_back(if last { Step::GiveUp { rank } } else { Step::Close { rank } });
            }
            Worker::Closed => *worker = Worker::Closed,
        }
        self.give(now);
    }

    /// Whether this slot waits for its worker to be ready.
    pub(crate) fn is_starting(&self, rank: u32) -> bool {
        let worker = self.workers.get(rank as usize);
        matches!(worker, Some(Worker::Starting { failed, .. }) if *failed < FRUITLESS_STARTS)
    }

    /// How many slots are not closed.
    pub(crate) fn open(&self) -> u32 {
        self.workers.iter().map(|worker| u32::from(!matches!(worker, Worker::Closed))).sum()
    }

    /// Ends workers that have been starting for longer than `limit`, and says which: they get no second try.
    pub(crate) fn end_overdue(&mut self, limit: Duration, now: Duration) -> Vec<u32> {
        let mut overdue = Vec::new();
        for (worker, rank) in self.workers.iter_mut().zip(0..) {
            if let Worker::Starting { failed, since } = worker
                && *failed < FRUITLESS_STARTS
                && now.saturating_sub(*since) > limit
            {
                *failed = FRUITLESS_STARTS;
                self.steps.push_back(Step::Kill { rank });
                overdue.push(rank);
            }
        }
        overdue
    }

    /// What this worker had not read waits again, at the head of the line.
    pub(crate) fn taken_back(&mut self, rank: u32, unread: Vec<T>, now: Duration) {
        self.put_back(rank, unread);
        if let Some(Worker::Ready(ready)) = self.workers.get(rank as usize)
            && ready.given.is_empty()
            && !ready.doomed
            && !self.idle.contains(&rank)
        {
            self.idle.push(rank);
        }
        self.give(now);
    }

    fn put_back(&mut self, rank: u32, unread: Vec<T>) {
        let Some(Worker::Ready(ready)) = self.workers.get_mut(rank as usize) else { return };
        let before = ready.given.len().saturating_sub(1);
        for task in unread.into_iter().rev() {
            if let Some(at) = ready.given.iter().rposition(|given| *given == task.id()) {
                ready.given.remove(at);
                self.waiting.push_front(task);
            }
        }
        self.ahead -= before - ready.given.len().saturating_sub(1);
    }

    /// Workers with tasks ahead: what they have not read must be taken back before [`Self::abandon`] or
    /// [`Self::recall`] can tell the begun from the unbegun.
    pub(crate) fn with_ahead(&self) -> Vec<u32> {
        let ranks = 0..self.workers.len() as u32;
        if self.ahead == 0 {
            return Vec::new();
        }
        ranks.filter(|rank| self.given(*rank) > 1).collect()
    }

    /// Drops a task that no worker has begun; one that has begun goes on.
    pub(crate) fn forget(&mut self, id: TaskId) -> bool {
        let Some(index) = self.waiting.iter().position(|waiting| waiting.id() == id) else { return false };
        self.waiting.remove(index);
        self.steps.push_back(Step::Lost { rank: 0, task: id });
        true
    }

    /// The engine does not want this task any more.
    pub(crate) fn abandon(&mut self, id: TaskId) {
        if self.forget(id) {
            return;
        }
        // Of what can't be taken back, the last is being run; the results of the others are on their way.
        for (worker, rank) in self.workers.iter_mut().zip(0..) {
            if let Worker::Ready(ready) = worker
                && ready.given.back() == Some(&id)
            {
                ready.doomed = true;
                self.steps.push_back(Step::Kill { rank });
            }
        }
    }

    /// Whether there is more to do than the workers have begun: results may go in company.
    pub(crate) fn is_behind(&self) -> bool {
        self.ahead > 0 || !self.waiting.is_empty()
    }

    /// Gives back what waits.
    pub(crate) fn recall(&mut self) -> Vec<TaskId> {
        self.waiting.drain(..).map(|task| task.id()).collect()
    }

    /// How soon to look for stalled workers, if there is anything to be held up.
    pub(crate) fn look_again(&self) -> Option<Duration> {
        (self.ahead > 0).then_some(STALLED)
    }

    /// Takes from workers that do not end their tasks what was given ahead to them.
    pub(crate) fn relieve(&mut self, now: Duration) {
        for rank in self.with_ahead() {
            if let Some(Worker::Ready(ready)) = self.workers.get(rank as usize)
                && now.saturating_sub(ready.since) >= STALLED
            {
                self.steps.push_back(Step::TakeBack { rank });
            }
        }
    }

    fn given(&self, rank: u32) -> usize {
        match self.workers.get(rank as usize) {
            Some(Worker::Ready(ready)) => ready.given.len(),
            _ => 0,
        }
    }

    /// Idle workers get what waits.
    fn give(&mut self, now: Duration) {
        while !self.waiting.is_empty() {
            let Some(rank) = self.idle.pop() else { return };
            self.hand_over(rank, now);
        }
    }

    /// A quick worker gets some ahead, and leaves the others their share.
    fn fill(&mut self, rank: u32, now: Duration) {
        let Some(Worker::Ready(ready)) = self.workers.get(rank as usize) else { return };
        let ahead = (ready.throughput.recent(now) / PART_AHEAD) as usize;
        let ahead = ahead.min(MOST_AHEAD).min(self.waiting.len() / self.workers.len().max(1));
        let left = self.most.map_or(usize::MAX, |most| most.saturating_sub(ready.ran) as usize);
        if ready.bulky || ready.doomed {
            return;
        }
        for _ in ready.given.len()..left.min(ahead + 1) {
            if self.waiting.front().is_none_or(Burden::is_bulky) {
                return;
            }
            self.hand_over(rank, now);
        }
    }

    fn hand_over(&mut self, rank: u32, now: Duration) {
        let Some(Worker::Ready(ready)) = self.workers.get_mut(rank as usize) else { return };
        let Some(task) = self.waiting.pop_front() else { return };
        if ready.given.is_empty() {
            ready.since = now;
        } else {
            self.ahead += 1;
        }
        ready.bulky = task.is_bulky();
        ready.given.push_back(task.id());
        self.steps.push_back(Step::Give { rank, task });
    }

    /// Nobody is idle while tasks lie ahead elsewhere.
    fn even_out(&mut self) {
        if self.ahead == 0 || self.idle.is_empty() {
            return;
        }
        let most = (0..self.workers.len() as u32).max_by_key(|rank| self.given(*rank));
        if let Some(rank) = most {
            self.steps.push_back(Step::TakeBack { rank });
        }
    }
}
