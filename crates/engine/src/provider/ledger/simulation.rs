//! The ledger against a scheduler that loses answers, fails, requeues and forgets, and an endpoint that is killed.
//!
//! Two promises: there is never a job that the ledger does not know, and once no block is wanted any more and the
//! scheduler answers again, no job is left.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::tests::LIMIT;
use super::*;
use crate::provider::scheduler::{BatchState, EndCause, Wait, WaitReason};

/// A scheduler's truth: its jobs, by their names.
#[derive(Default)]
struct Scheduler {
    jobs: BTreeMap<String, (JobId, BatchState)>,
    /// Jobs that its tables don't show yet: the next question for one is answered wrongly.
    hidden: BTreeSet<String>,
    /// When a job was preempted: it may come back within a minute.
    preempted: BTreeMap<String, Duration>,
    last_id: u32,
}

fn pending() -> BatchState {
    BatchState::Waiting(Wait { reason: WaitReason::Priority, words: String::new(), expected: None })
}

fn ended(cause: EndCause) -> BatchState {
    BatchState::Ended(Ended { cause, exit: None, words: String::new() })
}

impl Scheduler {
    fn submit(&mut self, name: &str) -> JobId {
        self.last_id += 1;
        let id = JobId(self.last_id.to_string());
        let before = self.jobs.insert(name.to_owned(), (id.clone(), pending()));
        assert!(before.is_none(), "submitted twice");
        id
    }

    fn alive(&self) -> impl Iterator<Item = &String> {
        let lives =
            |(_, (_, state)): &(&String, &(JobId, BatchState))| !matches!(state, BatchState::Ended(_));
        self.jobs.iter().filter(lives).map(|(name, _)| name)
    }

    fn verdict(&self, id: &JobId) -> Verdict {
        let found = self.jobs.iter().find(|(_, (job, _))| job == id);
        found.map_or(Verdict::Absent(None), |(name, (_, state))| {
            Verdict::Known(JobReport { state: state.clone(), name: Some(name.clone()) })
        })
    }

    fn cancel(&mut self, ids: &[JobId]) {
        let Self { jobs, preempted, .. } = self;
        for (name, (_, state)) in jobs.iter_mut().filter(|(_, (id, _))| ids.contains(id)) {
            *state = ended(EndCause::Cancelled { by: None });
            preempted.remove(name);
        }
    }
}

/// What is under way.
enum Call {
    Write(Uuid),
    Submit(Uuid, String),
    Find(Uuid, String),
    Cancel(Vec<JobId>),
    Poll(Vec<JobId>),
}

struct World {
    ledger: Ledger,
    scheduler: Scheduler,
    calls: Vec<Call>,
    disk: BTreeMap<Uuid, Record>,
    now: Duration,
    blocks: u128,
}

impl World {
    fn new() -> Self {
        Self {
            ledger: Ledger::new(LIMIT, false),
            scheduler: Scheduler::default(),
            calls: Vec::new(),
            disk: BTreeMap::new(),
            now: Duration::ZERO,
            blocks: 0,
        }
    }

    fn apply(&mut self, event: Event) {
        for action in self.ledger.apply(event, self.now) {
            match action {
                Action::Write(record) => {
                    if record.job.is_none() {
                        self.calls.push(Call::Write(record.block));
                    }
                    self.disk.insert(record.block, record);
                }
                Action::Erase(block) => drop(self.disk.remove(&block)),
                Action::Submit { block, name } => self.calls.push(Call::Submit(block, name)),
                Action::Find { block, name } => self.calls.push(Call::Find(block, name)),
                Action::Cancel(jobs) => self.calls.push(Call::Cancel(jobs)),
                Action::Tell { .. } => {}
            }
        }
        for name in self.scheduler.alive() {
            assert!(self.ledger.entries.values().any(|entry| entry.name == *name), "nobody knows {name}");
        }
    }

    /// Answers a call; how, and whether at all, `luck` decides.
    fn answer(&mut self, call: Call, luck: u8) {
        let lost = || SubmitError::Unknown("lost".into());
        match call {
            Call::Write(block) => self.apply(Event::Written(block)),
            Call::Submit(block, name) => {
                let answer = match luck % 8 {
                    0 => Err(SubmitError::Refused("no".into())),
                    1 | 2 => Err(SubmitError::TryAgain("later".into())),
                    3 => Err(lost()),
                    4 => {
                        if luck >= 128 {
                            self.scheduler.hidden.insert(name.clone());
                        }
                        self.scheduler.submit(&name);
                        Err(lost())
                    }
                    _ => Ok(self.scheduler.submit(&name)),
                };
                self.apply(Event::Submitted { block, answer });
            }
            Call::Find(block, name) => {
                let answer = match luck % 3 {
                    0 => Err(QueryError("down".into())),
                    _ if self.scheduler.hidden.remove(&name) => Ok(None),
                    _ => Ok(self.scheduler.jobs.get(&name).map(|(id, _)| id.clone())),
                };
                self.apply(Event::Found { block, answer });
            }
            Call::Cancel(jobs) => {
                let answer = match luck % 4 {
                    0 => Err(CancelError { jobs, reason: "down".into() }),
                    1 => Ok(jobs), // without effect
                    _ => {
                        self.scheduler.cancel(&jobs);
                        Ok(jobs)
                    }
                };
                self.apply(Event::Cancelled(answer));
            }
            Call::Poll(jobs) => {
                if !luck.is_multiple_of(4) {
                    let verdicts = jobs.into_iter().map(|id| (id.clone(), self.scheduler.verdict(&id)));
                    let verdicts = verdicts.collect();
                    self.apply(Event::Polled(verdicts));
                }
            }
        }
    }

    fn poll(&mut self) {
        let jobs = self.ledger.open_jobs();
        let polling = self.calls.iter().any(|call| matches!(call, Call::Poll(_)));
        if !jobs.is_empty() && !polling {
            self.calls.push(Call::Poll(jobs));
        }
    }

    /// The endpoint is killed, and starts anew with what is on disk. What it had asked for may still happen.
    fn crash(&mut self, luck: u8) {
        for (number, call) in std::mem::take(&mut self.calls).into_iter().enumerate() {
            if let Call::Submit(_, name) = call
                && (usize::from(luck) >> (number % 8)) & 1 == 1
            {
                self.scheduler.submit(&name);
            }
        }
        self.ledger = Ledger::new(LIMIT, false);
        self.ledger.restore(self.disk.values().cloned().collect());
        self.apply(Event::Tick);
    }

    /// Something happens to a job by itself.
    fn change_job(&mut self, luck: u8) {
        let count = self.scheduler.jobs.len().max(1);
        let Some(name) = self.scheduler.jobs.keys().nth(usize::from(luck) % count).cloned() else { return };
        let Scheduler { jobs, preempted, .. } = &mut self.scheduler;
        let Some((_, state)) = jobs.get_mut(&name) else { return };
        let back = preempted.get(&name).is_some_and(|at| self.now - *at < Duration::from_secs(60));
        let next = match (&*state, luck / 16 % 4) {
            (BatchState::Waiting(_), 0..3) => BatchState::Running,
            (BatchState::Running, 0) => ended(EndCause::Failed),
            (BatchState::Running, 1) => pending(), // requeued
            (BatchState::Running, 2) => {
                preempted.insert(name, self.now);
                ended(EndCause::Preempted)
            }
            (BatchState::Ended(_), 1..) if back => pending(),
            (BatchState::Ended(_), 0) if !back => {
                jobs.remove(&name); // forgotten
                return;
            }
            (state, _) => state.clone(),
        };
        *state = next;
    }

    fn step(&mut self, (choice, luck): (u8, u8)) {
        match choice % 10 {
            0 => {
                self.blocks += 1;
                let name = format!("n{}", self.blocks);
                self.apply(Event::Wanted { block: Uuid::from_u128(self.blocks), name });
            }
            1 => {
                let block = u128::from(luck) % (self.blocks + 1);
                self.apply(Event::Unwanted(Uuid::from_u128(block)));
            }
            2 => self.poll(),
            3 => self.change_job(luck),
            4 if luck < 25 => self.crash(luck),
            4 | 5 => {
                self.now += Duration::from_secs(u64::from(luck));
                self.apply(Event::Tick);
            }
            _ if self.calls.is_empty() => {}
            _ => {
                let call = self.calls.remove(usize::from(choice) % self.calls.len());
                self.answer(call, luck);
            }
        }
    }

    /// No block is wanted any more, and everything answers: nothing may be left.
    fn settle(&mut self) {
        for block in 1..=self.blocks {
            self.apply(Event::Unwanted(Uuid::from_u128(block)));
        }
        for _ in 0..20 {
            self.poll();
            while let Some(call) = self.calls.pop() {
                self.answer(call, 7);
            }
            self.now += Duration::from_secs(61);
            self.apply(Event::Tick);
        }
        assert_eq!(self.scheduler.alive().count(), 0, "a job is left");
        assert!(self.ledger.entries.is_empty() && self.disk.is_empty(), "{:?}", self.ledger.entries);
    }
}

proptest! {
    #[test]
    fn no_job_is_unknown_or_left(steps in proptest::collection::vec(any::<(u8, u8)>(), 0..300)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.settle();
    }
}
