//! The node's decisions: tables of operations, and random operations.

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
struct TestTask(u128, bool);

impl SlotTask for TestTask {
    fn id(&self) -> TaskId {
        id(self.0)
    }

    fn is_large(&self) -> bool {
        self.1
    }
}

fn test_task(n: u128) -> TestTask {
    TestTask(n, false)
}

fn give(rank: u32, n: u128) -> Step<TestTask> {
    Step::Give { rank, task: test_task(n) }
}

fn ready_slots(count: u32) -> Slots<TestTask> {
    let mut slots = Slots::new(count, None);
    (0..count).for_each(|rank| slots.record_ready(rank, ms(0)));
    assert_eq!(slots.next_step(), None);
    slots
}

fn steps(slots: &mut Slots<TestTask>) -> Vec<Step<TestTask>> {
    std::iter::from_fn(|| slots.next_step()).collect()
}

fn add(slots: &mut Slots<TestTask>, tasks: impl IntoIterator<Item = u128>) -> Vec<Step<TestTask>> {
    tasks.into_iter().for_each(|n| slots.add_task(test_task(n), ms(0)));
    steps(slots)
}

fn end(slots: &mut Slots<TestTask>, rank: u32, n: u128) -> Vec<Step<TestTask>> {
    assert!(slots.record_end(rank, id(n), ms(0)));
    steps(slots)
}

/// One worker that has ended four tasks at once, and runs the fifth with the sixth prefetched.
fn quick() -> Slots<TestTask> {
    let mut slots = ready_slots(1);
    assert_eq!(add(&mut slots, 1..=8), [give(0, 1)]);
    for n in 1..=3 {
        assert_eq!(end(&mut slots, 0, n), [give(0, n + 1)], "its throughput is not known yet");
    }
    assert_eq!(end(&mut slots, 0, 4), [give(0, 5), give(0, 6)]);
    slots
}

#[test]
fn tasks_wait_for_workers_and_workers_for_tasks() {
    let mut slots = Slots::new(1, None);
    assert_eq!(add(&mut slots, [1, 2]), [], "the worker is still starting");
    slots.record_ready(0, ms(0));
    assert_eq!(steps(&mut slots), [give(0, 1)]);
    assert!(!slots.record_end(0, id(2), ms(0)), "not the task it has");
    assert_eq!(end(&mut slots, 0, 1), [give(0, 2)]);
    assert_eq!(end(&mut slots, 0, 2), []);
}

#[test]
fn the_warm_worker_comes_first() {
    let mut slots = ready_slots(3);
    assert_eq!(add(&mut slots, [1]), [give(2, 1)]);
    end(&mut slots, 2, 1);
    assert_eq!(add(&mut slots, [2]), [give(2, 2)]);
}

#[test]
fn a_dead_worker_loses_only_the_task_that_it_was_running() {
    let mut slots = ready_slots(1);
    add(&mut slots, [1, 2]);
    slots.record_exit(0, vec![], ms(0));
    assert_eq!(steps(&mut slots), [Step::Lost { rank: 0, task: id(1) }, Step::Start { rank: 0 }]);
    slots.record_ready(0, ms(0));
    assert_eq!(steps(&mut slots), [give(0, 2)]);
    end(&mut slots, 0, 2);
    slots.record_exit(0, vec![], ms(0));
    assert_eq!(steps(&mut slots), [Step::Start { rank: 0 }], "idle: nothing is lost");
    assert_eq!(add(&mut slots, [3]), [], "and it is not idle any more");
}

#[test]
fn a_node_gives_up_after_three_failed_starts() {
    let mut slots = Slots::<TestTask>::new(1, None);
    for expected in [Step::Start { rank: 0 }, Step::Start { rank: 0 }, Step::GiveUp { rank: 0 }] {
        slots.record_exit(0, vec![], ms(0));
        assert_eq!(steps(&mut slots), [expected]);
    }
}

#[test]
fn a_slot_whose_worker_does_not_start_is_closed_and_the_others_go_on() {
    let mut slots = Slots::new(3, None);
    slots.record_ready(0, ms(0));
    assert_eq!(add(&mut slots, [1, 2]), [give(0, 1)]);
    for expected in [Step::Start { rank: 1 }, Step::Start { rank: 1 }, Step::Close { rank: 1 }] {
        assert_eq!(slots.open_count(), 3);
        slots.record_exit(1, vec![], ms(0));
        assert_eq!(steps(&mut slots), [expected]);
    }
    assert_eq!(slots.open_count(), 2);
    assert_eq!(end(&mut slots, 0, 1), [give(0, 2)], "what was running and what waits goes on");
    slots.record_exit(1, vec![], ms(0));
    slots.record_ready(1, ms(0));
    assert_eq!((steps(&mut slots), slots.open_count()), (vec![], 2), "a closed slot stays closed");
    // The worker that ran before dies and does not start again, and neither does the last.
    slots.record_exit(0, vec![], ms(0));
    assert_eq!(steps(&mut slots), [Step::Lost { rank: 0, task: id(2) }, Step::Start { rank: 0 }]);
    (0..3).for_each(|_| slots.record_exit(0, vec![], ms(0)));
    assert_eq!(steps(&mut slots).last(), Some(&Step::Close { rank: 0 }));
    (0..3).for_each(|_| slots.record_exit(2, vec![], ms(0)));
    assert_eq!(steps(&mut slots).last(), Some(&Step::GiveUp { rank: 2 }));
}

#[test]
fn a_worker_that_is_not_ready_in_time_is_ended_and_gets_no_second_try() {
    let (mut slots, limit) = (Slots::<TestTask>::new(2, None), ms(100));
    slots.record_ready(0, ms(50));
    assert_eq!(slots.end_overdue(limit, ms(100)), [0; 0]);
    assert_eq!(slots.end_overdue(limit, ms(101)), [1]);
    assert_eq!(steps(&mut slots), [Step::Kill { rank: 1 }]);
    assert_eq!(slots.end_overdue(limit, ms(300)), [0; 0], "once");
    slots.record_exit(1, vec![], ms(300));
    assert_eq!(steps(&mut slots), [Step::Close { rank: 1 }]);
    // A new worker gets the whole limit again.
    slots.record_exit(0, vec![], ms(400));
    assert_eq!(steps(&mut slots), [Step::Start { rank: 0 }]);
    assert_eq!(slots.end_overdue(limit, ms(500)), [0; 0]);
    assert_eq!(slots.end_overdue(limit, ms(501)), [0]);
    slots.record_exit(0, vec![], ms(501));
    assert_eq!(steps(&mut slots), [Step::Kill { rank: 0 }, Step::GiveUp { rank: 0 }]);
}

#[test]
fn a_worker_is_replaced_when_it_has_run_as_many_tasks_as_it_may() {
    let mut slots = Slots::new(1, Some(2));
    slots.record_ready(0, ms(0));
    assert_eq!(add(&mut slots, [1, 2, 3]), [give(0, 1)]);
    assert_eq!(end(&mut slots, 0, 1), [give(0, 2)]);
    assert_eq!(end(&mut slots, 0, 2), [Step::Kill { rank: 0 }]);
    slots.record_exit(0, vec![], ms(0));
    assert_eq!(steps(&mut slots), [Step::Start { rank: 0 }], "nothing is lost");
    slots.record_ready(0, ms(0));
    assert_eq!(steps(&mut slots), [give(0, 3)]);
}

#[test]
fn a_thread_finishes_the_task_that_it_has_begun() {
    let mut slots = ready_slots(1);
    add(&mut slots, [1, 2]);
    assert!(slots.drop_waiting(id(2)));
    assert_eq!(steps(&mut slots), [Step::Lost { rank: 0, task: id(2) }]);
    assert!(!slots.drop_waiting(id(1)));
    assert_eq!(end(&mut slots, 0, 1), []);
}

#[test]
fn a_recall_gives_back_what_has_not_begun() {
    let mut slots = ready_slots(1);
    add(&mut slots, 1..=3);
    assert_eq!(slots.drain_waiting(), [id(2), id(3)]);
    assert_eq!(end(&mut slots, 0, 1), []);
}

#[test]
fn an_abandoned_task_is_dropped_or_its_worker_killed() {
    let mut slots = ready_slots(1);
    add(&mut slots, [1, 2, 3]);
    slots.abandon(id(2));
    assert_eq!(steps(&mut slots), [Step::Lost { rank: 0, task: id(2) }]);
    slots.abandon(id(1));
    assert_eq!(steps(&mut slots), [Step::Kill { rank: 0 }]);
    slots.abandon(id(9));
    slots.record_exit(0, vec![], ms(0));
    assert_eq!(steps(&mut slots), [Step::Lost { rank: 0, task: id(1) }, Step::Start { rank: 0 }]);
}

#[test]
fn a_result_before_the_kill_counts_and_the_worker_gets_no_more_tasks() {
    let mut slots = ready_slots(1);
    add(&mut slots, [1, 2]);
    slots.abandon(id(1));
    assert_eq!(steps(&mut slots), [Step::Kill { rank: 0 }]);
    assert_eq!(end(&mut slots, 0, 1), []);
    slots.record_exit(0, vec![], ms(0));
    assert_eq!(steps(&mut slots), [Step::Start { rank: 0 }]);
}

#[test]
fn prefetched_tasks_of_a_dead_worker_are_queued_again() {
    let mut slots = quick();
    slots.record_exit(0, vec![test_task(6)], ms(1));
    assert_eq!(steps(&mut slots), [Step::Lost { rank: 0, task: id(5) }, Step::Start { rank: 0 }]);
    slots.record_ready(0, ms(2));
    assert_eq!(steps(&mut slots), [give(0, 6)], "before those that came later");
}

#[test]
fn prefetched_tasks_are_taken_back_from_a_slow_worker() {
    let mut slots = quick();
    assert_eq!(slots.time_to_stall_check(), Some(ms(5)));
    slots.take_back_from_stalled(ms(4));
    assert_eq!(steps(&mut slots), []);
    slots.take_back_from_stalled(ms(5));
    assert_eq!(steps(&mut slots), [Step::TakeBack { rank: 0 }]);
    slots.requeue_unread(0, vec![test_task(6)], ms(5));
    assert_eq!((steps(&mut slots), slots.time_to_stall_check()), (vec![], None));
    assert_eq!(slots.drain_waiting(), [id(6), id(7), id(8)]);
}

#[test]
fn prefetched_tasks_move_to_an_idle_worker() {
    let mut slots = ready_slots(2);
    assert_eq!(add(&mut slots, 1..=14), [give(1, 1), give(0, 2)]);
    for n in [1, 3, 4] {
        end(&mut slots, 1, n);
    }
    assert_eq!(end(&mut slots, 1, 5), [give(1, 6), give(1, 7)]);
    slots.drain_waiting();
    assert_eq!(end(&mut slots, 0, 2), [Step::TakeBack { rank: 1 }]);
    slots.requeue_unread(1, vec![test_task(7)], ms(0));
    assert_eq!(steps(&mut slots), [give(0, 7)]);
}

#[test]
fn a_large_task_is_never_prefetched() {
    let mut slots = quick();
    slots.drain_waiting();
    end(&mut slots, 0, 5);
    slots.add_task(TestTask(9, true), ms(0));
    (10..20).for_each(|n| slots.add_task(test_task(n), ms(0)));
    assert_eq!(end(&mut slots, 0, 6), [Step::Give { rank: 0, task: TestTask(9, true) }]);
    assert_eq!(end(&mut slots, 0, 9)[0], give(0, 10));
}

#[test]
fn abandoning_a_task_kills_a_worker_that_has_read_it_ahead() {
    let mut slots = quick();
    // The worker has ended 5, which the node does not know yet, and has read 6: nothing can be taken back.
    slots.requeue_unread(0, vec![], ms(0));
    slots.abandon(id(6));
    assert_eq!(steps(&mut slots), [Step::Kill { rank: 0 }]);
    assert_eq!(end(&mut slots, 0, 5), []);
    slots.record_exit(0, vec![], ms(0));
    assert_eq!(steps(&mut slots), [Step::Lost { rank: 0, task: id(6) }, Step::Start { rank: 0 }]);
}

/// A worker whose socket is a list: it reads, ends and dies at random, and the node learns of it later.
#[derive(Debug, Default)]
struct Stub {
    alive: bool,
    socket: VecDeque<TestTask>,
    runs: Option<TestTask>,
    /// Tasks that have ended, whose answers the node has not read yet.
    said: VecDeque<TestTask>,
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Every task is ended, lost or given back exactly once and run at most once, whichever workers die.
    #[test]
    fn every_task_runs_at_most_once_and_ends_exactly_once(
        workers in 1..4usize,
        most in proptest::option::of(1..9u32),
        ops in proptest::collection::vec((0..12u8, any::<usize>(), 0..4u64), 0..300),
    ) {
        let mut slots = Slots::new(workers as u32, most);
        let mut stubs: Vec<Stub> = (0..workers).map(|_| Stub { alive: true, ..Stub::default() }).collect();
        let (mut now, mut came) = (ms(0), 0u128);
        let (mut reported, mut begun) = (Vec::new(), Vec::new());
        let finish = ops.len();
        let drain = (0..4000).map(|n| ([3, 4, 5, 1, 10][n % 5], n / 5, 1));
        for (index, (op, which, wait)) in ops.into_iter().chain(drain).enumerate() {
            now += ms(wait);
            let rank = which % workers;
            let stub = &mut stubs[rank];
            match op {
                0 | 2 | 6 | 7 if index < finish => {
                    came += 1;
                    slots.add_task(TestTask(came, which % 10 == 0), now);
                }
                1 if stub.alive => slots.record_ready(rank as u32, now),
                3 if stub.alive && stub.runs.is_none() => {
                    stub.runs = stub.socket.pop_front();
                    begun.extend(stub.runs.as_ref().map(|task| task.0));
                }
                4 if stub.alive => stub.said.extend(stub.runs.take()),
                5 => {
                    if let Some(task) = stub.said.pop_front() {
                        prop_assert!(slots.record_end(rank as u32, task.id(), now));
                        reported.push(task.0);
                    }
                }
                8 if index < finish => stub.alive = false,
                9 if index < finish => {
                    for rank in slots.workers_with_prefetched() {
                        let unread = stubs[rank as usize].socket.drain(..).collect();
                        slots.requeue_unread(rank, unread, now);
                    }
                    if which % 2 == 0 {
                        reported.extend(slots.drain_waiting().iter().map(|id| id.as_uuid().as_u128()));
                    } else {
                        let task = (which / 2) as u128 % (came + 1);
                        slots.abandon(id(task));
                    }
                }
                10 => slots.take_back_from_stalled(now),
                _ => {}
            }
            loop {
                while let Some(step) = slots.next_step() {
                    match step {
                        Step::Give { rank, task } => stubs[rank as usize].socket.push_back(task),
                        Step::TakeBack { rank } => {
                            let unread = stubs[rank as usize].socket.drain(..).collect();
                            slots.requeue_unread(rank, unread, now);
                        }
                        Step::Kill { rank } => stubs[rank as usize].alive = false,
                        Step::Lost { task, .. } => reported.push(task.as_uuid().as_u128()),
                        Step::Start { .. } => {}
                        Step::Close { .. } => {}
                        Step::GiveUp { .. } => return Ok(()),
                    }
                }
                // An exit is reported after all answers are read.
                let dead = stubs.iter().position(|stub| !stub.alive && stub.said.is_empty());
                let Some(rank) = dead else { break };
                let stub = Stub { alive: true, ..Stub::default() };
                let before = std::mem::replace(&mut stubs[rank], stub);
                let unread = before.socket.into_iter().filter(|task| !task.1).collect();
                slots.record_exit(rank as u32, unread, now);
            }
            prop_assert!(slots.prefetched <= MAX_PREFETCHED * workers);
        }
        reported.sort_unstable();
        prop_assert_eq!(reported, (1..=came).collect::<Vec<_>>());
        let runs = begun.len();
        begun.sort_unstable();
        begun.dedup();
        prop_assert_eq!(begun.len(), runs, "run twice");
    }
}
