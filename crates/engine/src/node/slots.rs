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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn id(n: u128) -> TaskId {
        TaskId::from_uuid(Uuid::from_u128(n))
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Load(u128, bool);

    impl Burden for Load {
        fn id(&self) -> TaskId {
            id(self.0)
        }

        fn is_bulky(&self) -> bool {
            self.1
        }
    }

    fn load(n: u128) -> Load {
        Load(n, false)
    }

    fn give(rank: u32, n: u128) -> Step<Load> {
        Step::Give { rank, task: load(n) }
    }

    fn running(count: u32) -> Slots<Load> {
        let mut slots = Slots::new(count, None);
        (0..count).for_each(|rank| slots.ready(rank, ms(0)));
        assert_eq!(slots.next_step(), None);
        slots
    }

    fn steps(slots: &mut Slots<Load>) -> Vec<Step<Load>> {
        std::iter::from_fn(|| slots.next_step()).collect()
    }

    fn come(slots: &mut Slots<Load>, tasks: impl IntoIterator<Item = u128>) -> Vec<Step<Load>> {
        tasks.into_iter().for_each(|n| slots.task_came(load(n), ms(0)));
        steps(slots)
    }

    fn end(slots: &mut Slots<Load>, rank: u32, n: u128) -> Vec<Step<Load>> {
        assert!(slots.ended(rank, id(n), ms(0)));
        steps(slots)
    }

    /// One worker that has ended four tasks in no time, and runs the fifth with the sixth ahead.
    fn quick() -> Slots<Load> {
        let mut slots = running(1);
        assert_eq!(come(&mut slots, 1..=8), [give(0, 1)]);
        for n in 1..=3 {
            assert_eq!(end(&mut slots, 0, n), [give(0, n + 1)], "its pace is not known yet");
        }
        assert_eq!(end(&mut slots, 0, 4), [give(0, 5), give(0, 6)]);
        slots
    }

    #[test]
    fn tasks_wait_for_workers_and_workers_for_tasks() {
        let mut slots = Slots::new(1, None);
        assert_eq!(come(&mut slots, [1, 2]), [], "the worker is still starting");
        slots.ready(0, ms(0));
        assert_eq!(steps(&mut slots), [give(0, 1)]);
        assert!(!slots.ended(0, id(2), ms(0)), "not the task it has");
        assert_eq!(end(&mut slots, 0, 1), [give(0, 2)]);
        assert_eq!(end(&mut slots, 0, 2), []);
    }

    #[test]
    fn the_warm_worker_comes_first() {
        let mut slots = running(3);
        assert_eq!(come(&mut slots, [1]), [give(2, 1)]);
        end(&mut slots, 2, 1);
        assert_eq!(come(&mut slots, [2]), [give(2, 2)]);
    }

    #[test]
    fn a_death_costs_the_task_that_was_running_and_no_other() {
        let mut slots = running(1);
        come(&mut slots, [1, 2]);
        slots.died(0, vec![], ms(0));
        assert_eq!(steps(&mut slots), [Step::Lost { rank: 0, task: id(1) }, Step::Start { rank: 0 }]);
        slots.ready(0, ms(0));
        assert_eq!(steps(&mut slots), [give(0, 2)]);
        end(&mut slots, 0, 2);
        slots.died(0, vec![], ms(0));
        assert_eq!(steps(&mut slots), [Step::Start { rank: 0 }], "idle: nothing is lost");
        assert_eq!(come(&mut slots, [3]), [], "and it is not idle any more");
    }

    #[test]
    fn an_interpreter_that_never_gets_ready_is_given_up() {
        let mut slots = Slots::<Load>::new(1, None);
        for expected in [Step::Start { rank: 0 }, Step::Start { rank: 0 }, Step::GiveUp { rank: 0 }] {
            slots.died(0, vec![], ms(0));
            assert_eq!(steps(&mut slots), [expected]);
        }
    }

    #[test]
    fn a_slot_whose_worker_does_not_start_is_closed_and_the_others_go_on() {
        let mut slots = Slots::new(3, None);
        slots.ready(0, ms(0));
        assert_eq!(come(&mut slots, [1, 2]), [give(0, 1)]);
        for expected in [Step::Start { rank: 1 }, Step::Start { rank: 1 }, Step::Close { rank: 1 }] {
            assert_eq!(slots.open(), 3);
            slots.died(1, vec![], ms(0));
            assert_eq!(steps(&mut slots), [expected]);
        }
        assert_eq!(slots.open(), 2);
        assert_eq!(end(&mut slots, 0, 1), [give(0, 2)], "what was running and what waits goes on");
        slots.died(1, vec![], ms(0));
        slots.ready(1, ms(0));
        assert_eq!((steps(&mut slots), slots.open()), (vec![], 2), "closed is closed");
        // The one that worked before dies and does not come back, and neither does the last.
        slots.died(0, vec![], ms(0));
        assert_eq!(steps(&mut slots), [Step::Lost { rank: 0, task: id(2) }, Step::Start { rank: 0 }]);
        (0..3).for_each(|_| slots.died(0, vec![], ms(0)));
        assert_eq!(steps(&mut slots).last(), Some(&Step::Close { rank: 0 }));
        (0..3).for_each(|_| slots.died(2, vec![], ms(0)));
        assert_eq!(steps(&mut slots).last(), Some(&Step::GiveUp { rank: 2 }));
    }

    #[test]
    fn a_worker_that_is_not_ready_in_time_is_ended_and_gets_no_second_try() {
        let (mut slots, limit) = (Slots::<Load>::new(2, None), ms(100));
        slots.ready(0, ms(50));
        assert_eq!(slots.end_overdue(limit, ms(100)), [0; 0]);
        assert_eq!(slots.end_overdue(limit, ms(101)), [1]);
        assert_eq!(steps(&mut slots), [Step::Kill { rank: 1 }]);
        assert_eq!(slots.end_overdue(limit, ms(300)), [0; 0], "once");
        slots.died(1, vec![], ms(300));
        assert_eq!(steps(&mut slots), [Step::Close { rank: 1 }]);
        // A fresh worker has all the time again.
        slots.died(0, vec![], ms(400));
        assert_eq!(steps(&mut slots), [Step::Start { rank: 0 }]);
        assert_eq!(slots.end_overdue(limit, ms(500)), [0; 0]);
        assert_eq!(slots.end_overdue(limit, ms(501)), [0]);
        slots.died(0, vec![], ms(501));
        assert_eq!(steps(&mut slots), [Step::Kill { rank: 0 }, Step::GiveUp { rank: 0 }]);
    }

    #[test]
    fn a_worker_is_replaced_when_it_has_run_as_many_tasks_as_it_may() {
        let mut slots = Slots::new(1, Some(2));
        slots.ready(0, ms(0));
        assert_eq!(come(&mut slots, [1, 2, 3]), [give(0, 1)]);
        assert_eq!(end(&mut slots, 0, 1), [give(0, 2)]);
        assert_eq!(end(&mut slots, 0, 2), [Step::Kill { rank: 0 }]);
        slots.died(0, vec![], ms(0));
        assert_eq!(steps(&mut slots), [Step::Start { rank: 0 }], "nothing is lost");
        slots.ready(0, ms(0));
        assert_eq!(steps(&mut slots), [give(0, 3)]);
    }

    #[test]
    fn a_thread_goes_on_with_what_it_has_begun() {
        let mut slots = running(1);
        come(&mut slots, [1, 2]);
        assert!(slots.forget(id(2)));
        assert_eq!(steps(&mut slots), [Step::Lost { rank: 0, task: id(2) }]);
        assert!(!slots.forget(id(1)));
        assert_eq!(end(&mut slots, 0, 1), []);
    }

    #[test]
    fn a_recall_gives_back_what_has_not_begun() {
        let mut slots = running(1);
        come(&mut slots, 1..=3);
        assert_eq!(slots.recall(), [id(2), id(3)]);
        assert_eq!(end(&mut slots, 0, 1), []);
    }

    #[test]
    fn an_abandoned_task_is_forgotten_or_killed() {
        let mut slots = running(1);
        come(&mut slots, [1, 2, 3]);
        slots.abandon(id(2));
        assert_eq!(steps(&mut slots), [Step::Lost { rank: 0, task: id(2) }]);
        slots.abandon(id(1));
        assert_eq!(steps(&mut slots), [Step::Kill { rank: 0 }]);
        slots.abandon(id(9));
        slots.died(0, vec![], ms(0));
        assert_eq!(steps(&mut slots), [Step::Lost { rank: 0, task: id(1) }, Step::Start { rank: 0 }]);
    }

    #[test]
    fn a_result_that_was_faster_than_the_kill_counts_and_the_worker_gets_nothing_more() {
        let mut slots = running(1);
        come(&mut slots, [1, 2]);
        slots.abandon(id(1));
        assert_eq!(steps(&mut slots), [Step::Kill { rank: 0 }]);
        assert_eq!(end(&mut slots, 0, 1), []);
        slots.died(0, vec![], ms(0));
        assert_eq!(steps(&mut slots), [Step::Start { rank: 0 }]);
    }

    #[test]
    fn what_lies_ahead_of_a_dead_worker_waits_again() {
        let mut slots = quick();
        slots.died(0, vec![load(6)], ms(1));
        assert_eq!(steps(&mut slots), [Step::Lost { rank: 0, task: id(5) }, Step::Start { rank: 0 }]);
        slots.ready(0, ms(2));
        assert_eq!(steps(&mut slots), [give(0, 6)], "before those that came later");
    }

    #[test]
    fn what_lies_ahead_of_a_slow_worker_is_taken_back() {
        let mut slots = quick();
        assert_eq!(slots.look_again(), Some(ms(5)));
        slots.relieve(ms(4));
        assert_eq!(steps(&mut slots), []);
        slots.relieve(ms(5));
        assert_eq!(steps(&mut slots), [Step::TakeBack { rank: 0 }]);
        slots.taken_back(0, vec![load(6)], ms(5));
        assert_eq!((steps(&mut slots), slots.look_again()), (vec![], None));
        assert_eq!(slots.recall(), [id(6), id(7), id(8)]);
    }

    #[test]
    fn what_lies_ahead_of_one_worker_goes_to_another_that_is_idle() {
        let mut slots = running(2);
        assert_eq!(come(&mut slots, 1..=14), [give(1, 1), give(0, 2)]);
        for n in [1, 3, 4] {
            end(&mut slots, 1, n);
        }
        assert_eq!(end(&mut slots, 1, 5), [give(1, 6), give(1, 7)]);
        slots.recall();
        assert_eq!(end(&mut slots, 0, 2), [Step::TakeBack { rank: 1 }]);
        slots.taken_back(1, vec![load(7)], ms(0));
        assert_eq!(steps(&mut slots), [give(0, 7)]);
    }

    #[test]
    fn what_is_too_large_to_be_taken_back_is_given_alone() {
        let mut slots = quick();
        slots.recall();
        end(&mut slots, 0, 5);
        slots.task_came(Load(9, true), ms(0));
        (10..20).for_each(|n| slots.task_came(load(n), ms(0)));
        assert_eq!(end(&mut slots, 0, 6), [Step::Give { rank: 0, task: Load(9, true) }]);
        assert_eq!(end(&mut slots, 0, 9)[0], give(0, 10));
    }

    #[test]
    fn a_task_whose_turn_has_come_unseen_is_killed_all_the_same() {
        let mut slots = quick();
        // The worker has ended 5, which is not known here yet, and has read 6: nothing can be taken back.
        slots.taken_back(0, vec![], ms(0));
        slots.abandon(id(6));
        assert_eq!(steps(&mut slots), [Step::Kill { rank: 0 }]);
        assert_eq!(end(&mut slots, 0, 5), []);
        slots.died(0, vec![], ms(0));
        assert_eq!(steps(&mut slots), [Step::Lost { rank: 0, task: id(6) }, Step::Start { rank: 0 }]);
    }

    /// Workers whose sockets are lists: they read, end and die at random, and the node hears of it later.
    #[derive(Debug, Default)]
    struct Stub {
        alive: bool,
        socket: VecDeque<Load>,
        runs: Option<Load>,
        /// Ended, and the answer not heard yet.
        said: VecDeque<Load>,
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Every task that came is ended, lost or given back, once; it is run once at most; whatever dies.
        #[test]
        fn tasks_are_run_once_and_told_once(
            workers in 1..4usize,
            most in proptest::option::of(1..9u32),
            ops in proptest::collection::vec((0..12u8, any::<usize>(), 0..4u64), 0..300),
        ) {
            let mut slots = Slots::new(workers as u32, most);
            let mut stubs: Vec<Stub> = (0..workers).map(|_| Stub { alive: true, ..Stub::default() }).collect();
            let (mut now, mut came) = (ms(0), 0u128);
            let (mut told, mut begun) = (Vec::new(), Vec::new());
            let finish = ops.len();
            let drain = (0..4000).map(|n| ([3, 4, 5, 1, 10][n % 5], n / 5, 1));
            for (index, (op, which, wait)) in ops.into_iter().chain(drain).enumerate() {
                now += ms(wait);
                let rank = which % workers;
                let stub = &mut stubs[rank];
                match op {
                    0 | 2 | 6 | 7 if index < finish => {
                        came += 1;
                        slots.task_came(Load(came, which % 10 == 0), now);
                    }
                    1 if stub.alive => slots.ready(rank as u32, now),
                    3 if stub.alive && stub.runs.is_none() => {
                        stub.runs = stub.socket.pop_front();
                        begun.extend(stub.runs.as_ref().map(|load| load.0));
                    }
                    4 if stub.alive => stub.said.extend(stub.runs.take()),
                    5 => {
                        if let Some(load) = stub.said.pop_front() {
                            prop_assert!(slots.ended(rank as u32, load.id(), now));
                            told.push(load.0);
                        }
                    }
                    8 if index < finish => stub.alive = false,
                    9 if index < finish => {
                        for rank in slots.with_ahead() {
                            let unread = stubs[rank as usize].socket.drain(..).collect();
                            slots.taken_back(rank, unread, now);
                        }
                        if which % 2 == 0 {
                            told.extend(slots.recall().iter().map(|id| id.as_uuid().as_u128()));
                        } else {
                            let task = (which / 2) as u128 % (came + 1);
                            slots.abandon(id(task));
                        }
                    }
                    10 => slots.relieve(now),
                    _ => {}
                }
                loop {
                    while let Some(step) = slots.next_step() {
                        match step {
                            Step::Give { rank, task } => stubs[rank as usize].socket.push_back(task),
                            Step::TakeBack { rank } => {
                                let unread = stubs[rank as usize].socket.drain(..).collect();
                                slots.taken_back(rank, unread, now);
                            }
                            Step::Kill { rank } => stubs[rank as usize].alive = false,
                            Step::Lost { task, .. } => told.push(task.as_uuid().as_u128()),
                            Step::Start { .. } => {}
                            Step::Close { .. } => {}
                            Step::GiveUp { .. } => return Ok(()),
                        }
                    }
                    // A death is told when all that was said is heard.
                    let dead = stubs.iter().position(|stub| !stub.alive && stub.said.is_empty());
                    let Some(rank) = dead else { break };
                    let stub = Stub { alive: true, ..Stub::default() };
                    let before = std::mem::replace(&mut stubs[rank], stub);
                    let unread = before.socket.into_iter().filter(|load| !load.1).collect();
                    slots.died(rank as u32, unread, now);
                }
                prop_assert!(slots.ahead <= MOST_AHEAD * workers);
            }
            told.sort_unstable();
            prop_assert_eq!(told, (1..=came).collect::<Vec<_>>());
            let runs = begun.len();
            begun.sort_unstable();
            begun.dedup();
            prop_assert_eq!(begun.len(), runs, "run twice");
        }
    }
}
