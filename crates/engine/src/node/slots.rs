//! Which worker gets which task: the node's decisions, without IO.
//!
//! ```text
//! starting --ready--> idle --task--> busy --ended--> idle
//!     \__________________\______________\--died--> starting (a fresh one)
//! ```

use std::collections::VecDeque;

use wire::TaskId;

/// A worker has died this often in a row before it was ready: the interpreter does not work here.
const FRUITLESS_STARTS: u32 = 3;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Worker {
    Starting {
        failed: u32,
    },
    Idle,
    Busy(TaskId),
    /// It has run as many tasks as it may, and is being ended.
    Retired,
    /// Killed on purpose; its task is reported when it is gone.
    Doomed(TaskId),
}

/// What must be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step<T> {
    /// Write this task to this worker.
    Give { rank: u32, task: T },
    /// Kill this worker; its death will be told.
    Kill { rank: u32 },
    /// Start a fresh worker on this slot.
    Start { rank: u32 },
    /// Tell the engine that this task was lost with its worker.
    Lost { rank: u32, task: TaskId },
    /// No worker can be started here.
    GiveUp,
}

/// The node's slots and the tasks that wait for one.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    workers: Vec<Worker>,
    /// The last to become idle is the first to be busy again: its caches are warm, the others stay small.
    idle: Vec<u32>,
    waiting: VecDeque<(TaskId, T)>,
    /// How many tasks each may run, and how many it has run.
    most: Option<u32>,
    ran: Vec<u32>,
}

impl<T> Slots<T> {
    /// Slots for so many workers, each ended when it has run `most` tasks.
    pub(crate) fn new(count: u32, most: Option<u32>) -> Self {
        let workers = (0..count).map(|_| Worker::Starting { failed: 0 }).collect();
        let ran = (0..count).map(|_| 0).collect();
        Self { workers, idle: Vec::new(), waiting: VecDeque::new(), most, ran }
    }

    pub(crate) fn task_came(&mut self, id: TaskId, task: T) -> Option<Step<T>> {
        self.waiting.push_back((id, task));
        self.give()
    }

    pub(crate) fn ready(&mut self, rank: u32) -> Option<Step<T>> {
        let worker = self.workers.get_mut(rank as usize)?;
        if matches!(worker, Worker::Starting { .. }) {
            *worker = Worker::Idle;
            self.idle.push(rank);
        }
        self.give()
    }

    /// A worker has answered. The task is its own when this says so; the next step gives it another one.
    pub(crate) fn ended(&mut self, rank: u32, id: TaskId) -> (bool, Option<Step<T>>) {
        let Some(worker) = self.workers.get_mut(rank as usize) else { return (false, None) };
        match worker {
            Worker::Busy(task) if *task == id => {
                if let (Some(most), Some(ran)) = (self.most, self.ran.get_mut(rank as usize)) {
                    *ran += 1;
                    if *ran >= most {
                        *ran = 0;
                        *worker = Worker::Retired;
                        return (true, Some(Step::Kill { rank }));
                    }
                }
                *worker = Worker::Idle;
                self.idle.push(rank);
                (true, self.give())
            }
            _ => (false, None),
        }
    }

    /// A worker is gone, and so is everything it had started.
    pub(crate) fn died(&mut self, rank: u32) -> Vec<Step<T>> {
        let Some(worker) = self.workers.get_mut(rank as usize) else { return Vec::new() };
        let before = std::mem::replace(worker, Worker::Starting { failed: 0 });
        match before {
            Worker::Busy(task) | Worker::Doomed(task) => {
                vec![Step::Lost { rank, task }, Step::Start { rank }]
            }
            Worker::Retired => vec![Step::Start { rank }],
            Worker::Idle => {
                self.idle.retain(|idle| *idle != rank);
                vec![Step::Start { rank }]
            }
            Worker::Starting { failed } if failed + 1 >= FRUITLESS_STARTS => vec![Step::GiveUp],
            Worker::Starting { failed } => {
                *worker = Worker::Starting { failed: failed + 1 };
                vec![Step::Start { rank }]
            }
        }
    }

    /// Drops a task that no worker has begun; one that has begun goes on.
    pub(crate) fn forget(&mut self, id: TaskId) -> Option<Step<T>> {
        let index = self.waiting.iter().position(|(waiting, _)| *waiting == id)?;
        self.waiting.remove(index);
        Some(Step::Lost { rank: 0, task: id })
    }

    /// The engine does not want this task any more.
    pub(crate) fn abandon(&mut self, id: TaskId) -> Option<Step<T>> {
        if let Some(step) = self.forget(id) {
            return Some(step);
        }
        let rank = self.workers.iter().position(|worker| *worker == Worker::Busy(id))?;
        self.workers[rank] = Worker::Doomed(id);
        Some(Step::Kill { rank: rank as u32 })
    }

    /// Whether tasks wait for a worker.
    pub(crate) fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Gives back what no worker has begun.
    pub(crate) fn recall(&mut self) -> Vec<TaskId> {
        self.waiting.drain(..).map(|(id, _)| id).collect()
    }

    fn give(&mut self) -> Option<Step<T>> {
        if self.waiting.is_empty() {
            return None;
        }
        let rank = self.idle.pop()?;
        let (id, task) = self.waiting.pop_front()?;
        self.workers[rank as usize] = Worker::Busy(id);
        Some(Step::Give { rank, task })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn id(n: u128) -> TaskId {
        TaskId::from_uuid(Uuid::from_u128(n))
    }

    fn running(count: u32) -> Slots<u128> {
        let mut slots = Slots::new(count, None);
        for rank in 0..count {
            assert_eq!(slots.ready(rank), None);
        }
        slots
    }

    #[test]
    fn tasks_wait_for_workers_and_workers_for_tasks() {
        let mut slots = Slots::new(1, None);
        assert_eq!(slots.task_came(id(1), 1), None, "the worker is still starting");
        assert_eq!(slots.task_came(id(2), 2), None);
        assert_eq!(slots.ready(0), Some(Step::Give { rank: 0, task: 1 }));
        assert_eq!(slots.ended(0, id(2)), (false, None), "not the task it has");
        assert_eq!(slots.ended(0, id(1)), (true, Some(Step::Give { rank: 0, task: 2 })));
        assert_eq!(slots.ended(0, id(2)), (true, None));
    }

    #[test]
    fn the_warm_worker_comes_first() {
        let mut slots = running(3);
        assert_eq!(slots.task_came(id(1), 1), Some(Step::Give { rank: 2, task: 1 }));
        slots.ended(2, id(1));
        assert_eq!(slots.task_came(id(2), 2), Some(Step::Give { rank: 2, task: 2 }));
    }

    #[test]
    fn a_death_costs_the_task_that_was_running_and_no_other() {
        let mut slots = running(1);
        slots.task_came(id(1), 1);
        slots.task_came(id(2), 2);
        assert_eq!(slots.died(0), vec![Step::Lost { rank: 0, task: id(1) }, Step::Start { rank: 0 }]);
        assert_eq!(slots.ready(0), Some(Step::Give { rank: 0, task: 2 }));
        slots.ended(0, id(2));
        assert_eq!(slots.died(0), vec![Step::Start { rank: 0 }], "idle: nothing is lost");
        assert_eq!(slots.task_came(id(3), 3), None, "and it is not idle any more");
    }

    #[test]
    fn an_interpreter_that_never_gets_ready_is_given_up() {
        let mut slots = Slots::<u128>::new(1, None);
        assert_eq!(slots.died(0), vec![Step::Start { rank: 0 }]);
        assert_eq!(slots.died(0), vec![Step::Start { rank: 0 }]);
        assert_eq!(slots.died(0), vec![Step::GiveUp]);
    }

    #[test]
    fn a_worker_is_replaced_when_it_has_run_as_many_tasks_as_it_may() {
        let mut slots = Slots::new(1, Some(2));
        slots.ready(0);
        for n in 1..=3 {
            slots.task_came(id(n), n);
        }
        assert_eq!(slots.ended(0, id(1)), (true, Some(Step::Give { rank: 0, task: 2 })));
        assert_eq!(slots.ended(0, id(2)), (true, Some(Step::Kill { rank: 0 })));
        assert_eq!(slots.died(0), vec![Step::Start { rank: 0 }], "nothing is lost");
        assert_eq!(slots.ready(0), Some(Step::Give { rank: 0, task: 3 }));
    }

    #[test]
    fn a_thread_goes_on_with_what_it_has_begun() {
        let mut slots = running(1);
        slots.task_came(id(1), 1);
        slots.task_came(id(2), 2);
        assert_eq!(slots.forget(id(2)), Some(Step::Lost { rank: 0, task: id(2) }));
        assert_eq!(slots.forget(id(1)), None);
        assert_eq!(slots.ended(0, id(1)), (true, None));
    }

    #[test]
    fn a_recall_gives_back_what_has_not_begun() {
        let mut slots = running(1);
        for n in 1..=3 {
            slots.task_came(id(n), n);
        }
        assert_eq!(slots.recall(), [id(2), id(3)]);
        assert_eq!(slots.ended(0, id(1)), (true, None));
    }

    #[test]
    fn an_abandoned_task_is_forgotten_or_killed() {
        let mut slots = running(1);
        slots.task_came(id(1), 1);
        slots.task_came(id(2), 2);
        assert_eq!(slots.abandon(id(2)), Some(Step::Lost { rank: 0, task: id(2) }));
        assert_eq!(slots.abandon(id(1)), Some(Step::Kill { rank: 0 }));
        assert_eq!(slots.ended(0, id(1)), (false, None), "too late: it is being killed");
        assert_eq!(slots.died(0), vec![Step::Lost { rank: 0, task: id(1) }, Step::Start { rank: 0 }]);
        assert_eq!(slots.abandon(id(9)), None);
    }
}
