//! Simulates a broker, an engine, disks and crashes around the interchange. In every order of events, each task begins at most
//! once and ends once, or is back in its queue.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const TASKS: u128 = 6;

#[derive(Default)]
struct Simulation {
    // The broker.
    queue: VecDeque<TaskId>,
    unacknowledged: BTreeMap<Tag, TaskId>,
    next_tag: u64,
    session: Option<u32>,
    sessions: u32,
    taking: bool,
    on_their_way: Vec<(TaskId, bool)>,
    received: BTreeMap<TaskId, Vec<bool>>,
    // The engine.
    waiting: Vec<TaskId>,
    assigned: Vec<TaskId>,
    running: Vec<TaskId>,
    cancelled: Vec<TaskId>,
    began: BTreeMap<TaskId, u32>,
    // The disks. A result is whether it is one of a run (else the report of a loss).
    journal: BTreeMap<TaskId, &'static str>,
    spool: BTreeMap<TaskId, Vec<u8>>,
    writing: VecDeque<Vec<TaskId>>,
    keeping: VecDeque<(TaskId, Vec<u8>)>,
    loading: VecDeque<TaskId>,
    asking: VecDeque<TaskId>,
    left: bool,
}

const GOOD: &[u8] = b"good";

impl Simulation {
    fn start(&mut self) -> Interchange {
        self.taking = true;
        self.left = false;
        let of = |state: &str| -> Vec<TaskId> {
            self.journal.iter().filter(|(_, known)| **known == state).map(|(task, _)| *task).collect()
        };
        let spooled: Vec<_> = self.spool.keys().copied().collect();
        let lost = of("begun").into_iter().map(|task| (task, lost(task, endpoint(), "vm", 0))).collect();
        // A filter with many false positives.
        let mut ended = Filter::tiny();
        of("ended").into_iter().for_each(|task| ended.insert(task));
        let mut actions = Vec::new();
        let left = Leftovers { spooled, lost, ended, awaited: false };
        let interchange = Interchange::new(settings(), left, &mut actions);
        self.perform(actions);
        interchange
    }

    fn lose_session(&mut self) {
        self.session = None;
        self.on_their_way.clear();
        for (_, task) in std::mem::take(&mut self.unacknowledged).into_iter().rev() {
            self.queue.push_front(task);
        }
    }

    /// The process is gone at once; what is on disk stays.
    fn crash(&mut self) {
        self.lose_session();
        self.waiting.clear();
        self.assigned.clear();
        self.running.clear();
        self.cancelled.clear();
        self.writing.clear();
        self.keeping.clear();
        self.loading.clear();
        self.asking.clear();
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Submit(task) => self.waiting.push(task.0.id),
                Action::Cancel(task) => {
                    for place in [&mut self.waiting, &mut self.assigned, &mut self.running] {
                        if let Some(index) = place.iter().position(|other| *other == task) {
                            self.cancelled.push(place.remove(index));
                        }
                    }
                }
                Action::Journal(tasks) => self.writing.push_back(tasks),
                Action::JournalReturned(tasks) => tasks.into_iter().for_each(|task| {
                    self.writing.iter_mut().for_each(|batch| batch.retain(|other| *other != task));
                    self.journal.remove(&task);
                }),
                // The journal is written in order: the end of a task that was cancelled while its beginning waits to be
                // written comes after it.
                Action::JournalEnded(tasks) => tasks.into_iter().for_each(|task| {
                    self.writing.iter_mut().for_each(|batch| batch.retain(|other| *other != task));
                    self.journal.insert(task, "ended");
                    assert!(self.received.contains_key(&task), "{task} was forgotten and nobody has it");
                    self.spool.remove(&task);
                }),
                Action::Acknowledge(tags) => tags.into_iter().for_each(|tag| {
                    if let Some(task) = self.unacknowledged.remove(&tag) {
                        let safe = self.journal.contains_key(&task) || self.spool.contains_key(&task);
                        assert!(safe, "{task} was acknowledged and is nowhere");
                    }
                }),
                Action::Requeue(tags) => tags.into_iter().for_each(|tag| {
                    if let Some(task) = self.unacknowledged.remove(&tag) {
                        self.queue.push_back(task);
                    }
                }),
                Action::Reject(_) => panic!("every message is a good one"),
                Action::Begin(tasks) => tasks.into_iter().for_each(|task| {
                    if let Some(index) = self.assigned.iter().position(|other| *other == task) {
                        assert_eq!(
                            self.journal.get(&task),
                            Some(&"begun"),
                            "{task} began and is not written down"
                        );
                        self.assigned.remove(index);
                        self.running.push(task);
                        *self.began.entry(task).or_default() += 1;
                    }
                }),
                Action::Keep { task, result } => self.keeping.push_back((task, result)),
                Action::Load(task) => self.loading.push_back(task),
                Action::LookUp(task) => self.asking.push_back(task),
                Action::Publish { session, task, result } => {
                    if Some(session) == self.session {
                        self.on_their_way.push((task, result == GOOD));
                    }
                }
                Action::Consume(take) => self.taking = take,
                Action::End => self.left = true,
                Action::LookForResults { .. } => panic!("every earlier run has ended"),
                Action::Record(_)
                | Action::Heartbeat { .. }
                | Action::StopEngine { .. }
                | Action::StopWithin(_)
                | Action::EndWithin(_) => {}
            }
        }
    }

    /// Something happens, if it can.
    fn event(&mut self, choice: u8) -> Option<Input> {
        match choice % 10 {
            0 | 1 if self.taking => {
                let session = self.session?;
                let task = self.queue.pop_front()?;
                self.next_tag += 1;
                let tag = tag(session, self.next_tag);
                self.unacknowledged.insert(tag, task);
                Some(Input::Delivered(delivery(tag, task, b"x")))
            }
            2 => {
                let tasks: Vec<_> = self.waiting.drain(..self.waiting.len().min(2)).collect();
                self.assigned.extend(&tasks);
                (!tasks.is_empty()).then_some(Input::Assigned(tasks))
            }
            3 if !self.asking.is_empty() => {
                let task = self.asking.pop_front()?;
                Some(Input::LookedUp { task, known: self.journal.contains_key(&task) })
            }
            3 => {
                let tasks = self.writing.pop_front()?;
                tasks.iter().for_each(|task| {
                    self.journal.insert(*task, "begun");
                });
                Some(Input::Journaled(tasks))
            }
            4 if !self.cancelled.is_empty() => {
                let task = self.cancelled.pop()?;
                Some(Input::Ended { task, result: b"cancelled".to_vec() })
            }
            4 => {
                let task = self.running.pop()?;
                Some(Input::Ended { task, result: GOOD.to_vec() })
            }
            5 => {
                let (task, result) = self.keeping.pop_front()?;
                self.spool.insert(task, result.clone());
                Some(Input::Kept { task, result })
            }
            6 => {
                let task = self.loading.pop_front()?;
                Some(Input::Loaded { task, result: self.spool.get(&task).cloned() })
            }
            7 => {
                let (task, good) = self.on_their_way.pop()?;
                self.received.entry(task).or_default().push(good);
                Some(Input::Settled { task, status: PublishStatus::Confirmed })
            }
            8 => match self.session {
                None => {
                    self.session = Some(self.sessions);
                    self.sessions += 1;
                    Some(Input::LinkUp { session: self.sessions - 1 })
                }
                Some(_) if choice > 200 => {
                    self.lose_session();
                    Some(Input::LinkDown)
                }
                Some(_) => None,
            },
            9 => match choice {
                // The broker takes it and the session ends before it can say so.
                209 => {
                    let (task, good) = self.on_their_way.pop()?;
                    self.received.entry(task).or_default().push(good);
                    self.lose_session();
                    Some(Input::LinkDown)
                }
                // The manager allows nothing for a moment.
                89 => Some(Input::Allowed(Some(HashSet::new()))),
                99 => Some(Input::Allowed(None)),
                _ if choice < 70 => Some(Input::Cancel(vec![task(u128::from(choice / 10) % TASKS + 1)])),
                _ => Some(Input::HeartbeatDue),
            },
            _ => None,
        }
    }

    /// The endpoint stops in order.
    fn stop(&mut self, interchange: &mut Interchange) {
        let mut actions = Vec::new();
        interchange.apply(Input::Stop, &mut actions);
        interchange.apply(Input::Returned(std::mem::take(&mut self.waiting)), &mut actions);
        self.perform(actions);
        let mut engine_runs = true;
        for _ in 0..200 {
            if engine_runs && self.assigned.is_empty() && self.running.is_empty() && self.cancelled.is_empty()
            {
                engine_runs = false;
                let mut actions = Vec::new();
                interchange.apply(Input::EngineStopped, &mut actions);
                self.perform(actions);
            }
            for choice in [3, 4, 5, 6, 7] {
                if let Some(input) = self.event(choice) {
                    let mut actions = Vec::new();
                    interchange.apply(input, &mut actions);
                    self.perform(actions);
                }
            }
            if self.left {
                return;
            }
        }
        panic!("the endpoint does not end");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn every_task_begins_at_most_once_and_ends(choices in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut simulation = Simulation { queue: (1..=TASKS).map(task).collect(), ..Simulation::default() };
        let mut interchange = simulation.start();
        for choice in choices {
            if choice == 253 {
                simulation.crash();
                interchange = simulation.start();
            } else if choice >= 254 {
                simulation.stop(&mut interchange);
                simulation.crash();
                prop_assert!(!simulation.journal.values().any(|state| *state == "begun")
                    || simulation.journal.iter().filter(|(_, state)| **state == "begun").all(|(task, _)| simulation.spool.contains_key(task)),
                    "an orderly stop leaves nothing to be reported as lost");
                interchange = simulation.start();
            } else if let Some(input) = simulation.event(choice) {
                let mut actions = Vec::new();
                interchange.apply(input, &mut actions);
                simulation.perform(actions);
            }
        }
        // From here on nothing fails.
        for round in 0..400_u16 {
            let choice = u8::try_from(round % 9).unwrap();
            if let Some(input) = simulation.event(choice) {
                let mut actions = Vec::new();
                interchange.apply(input, &mut actions);
                simulation.perform(actions);
            }
        }
        for number in 1..=TASKS {
            let task = task(number);
            let began = simulation.began.get(&task).copied().unwrap_or(0);
            prop_assert!(began <= 1, "{} began {} times", task, began);
            let results = simulation.received.get(&task).cloned().unwrap_or_default();
            prop_assert!(!results.is_empty(), "{} never ended", task);
            prop_assert!(results.iter().all(|good| *good == results[0]), "{} ended in two ways: {:?}", task, results);
        }
        prop_assert!(simulation.spool.is_empty() && simulation.queue.is_empty() && simulation.unacknowledged.is_empty());
    }
}
