//! The job ledger: every job that may exist, from before its submission until it is known to have ended.
//!
//! ```text
//! wanted ─► written ─► submitting ─┬─ id ──────────────► open ─┬─ absent, or ended for 60 s ─► gone
//!             ▲                    ├─ try again ─► paused ─┐   └─ ended, and back: the same block
//!             └────────────────────┼───────────────────────┘
//!                                  ├─ refused ─────────────────────────────────────────────► gone
//!                                  └─ answer lost ─► searched for ─┬─ found ─► open
//!                                                                  └─ denied twice ────────► gone
//! ```
//!
//! It decides, and does nothing: each event leads to actions that a driver performs in their order. Three rules hold
//! against every order of events. No job is submitted before its entry is on disk. A submission whose answer was lost
//! counts as a job, and is not repeated, until the scheduler has denied it twice, a command's time limit apart. An entry
//! leaves only when its job can't run any more; a cancellation is repeated until then.

mod event;
mod open;
pub(crate) mod pace;
pub(crate) mod record;
pub(crate) mod runaway;

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

pub(crate) use self::event::{Action, Event, News};
use self::open::{Open, Step};
pub(crate) use self::record::Record;
use super::scheduler::{Ended, JobReport, Verdict, Verdicts};
use super::{CancelError, JobId, QueryError, SubmitError};

/// How often the scheduler must deny a job that it has never shown.
const DENIALS: u32 = 2;

/// The pauses between submissions that may succeed later.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// When a cancellation that the scheduler took is repeated, if the job is still there.
const CANCEL_AGAIN: Duration = Duration::from_secs(60);

/// After so many refused cancellations the user is told.
const CANCELS_BEFORE_WORD: u32 = 3;

#[derive(Clone, Debug)]
enum Phase {
    Writing,
    Submitting,
    Paused { until: Duration },
    Searching { denials: u32, asking: bool, next: Duration },
    Open(Open),
}

/// The repetition of a cancellation.
#[derive(Clone, Debug, Default)]
struct Cancelling {
    refused: u32,
    next: Duration,
}

#[derive(Clone, Debug)]
struct Entry {
    name: String,
    phase: Phase,
    tries: u32,
    cancelling: Option<Cancelling>,
    /// It was written by an earlier run, so that its id may belong to another job by now.
    restored: bool,
}

/// The entries, by the uuid of their block.
#[derive(Debug)]
pub(crate) struct Ledger {
    entries: BTreeMap<Uuid, Entry>,
    /// How long one command of the scheduler may take.
    command_limit: Duration,
    /// Whether jobs that have ended must be removed from the queue.
    keeps_ended: bool,
}

impl Ledger {
    pub(crate) fn new(command_limit: Duration, keeps_ended: bool) -> Self {
        Self { entries: BTreeMap::new(), command_limit, keeps_ended }
    }

    /// Takes over what an earlier run has left: all of it is cancelled.
    pub(crate) fn restore(&mut self, records: Vec<Record>) {
        for record in records {
            let phase = match record.job {
                Some(id) => Phase::Open(Open::new(id)),
                None => Phase::Searching { denials: 0, asking: false, next: Duration::ZERO },
            };
            let cancelling = Some(Cancelling::default());
            let entry = Entry { name: record.name, phase, tries: 0, cancelling, restored: true };
            self.entries.insert(record.block, entry);
        }
    }

    /// How many jobs may run, or run again.
    pub(crate) fn count(&self) -> usize {
        self.entries.values().filter(|entry| !entry.open().is_some_and(|open| open.told)).count()
    }

    /// The jobs to poll for. Without any, the scheduler is asked nothing.
    pub(crate) fn open_jobs(&self) -> Vec<JobId> {
        self.entries.values().filter_map(|entry| entry.open().map(|open| open.id.clone())).collect()
    }

    pub(crate) fn apply(&mut self, event: Event, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Wanted { block, name } => self.want(block, name, &mut actions),
            Event::Written(block) => self.submit_written(block, &mut actions),
            Event::Submitted { block, answer } => self.record_submission(block, answer, now, &mut actions),
            Event::Found { block, answer } => self.record_search(block, answer, now, &mut actions),
            Event::Polled(verdicts) => self.record_poll(&verdicts, now, &mut actions),
            Event::Unwanted(block) => self.stop_wanting(block, now, &mut actions),
            Event::Cancelled(answer) => self.record_cancellation(answer, now, &mut actions),
            Event::Tick => {}
        }
        self.go_on(now, &mut actions);
        actions
    }

    fn want(&mut self, block: Uuid, name: String, actions: &mut Vec<Action>) {
        if self.entries.contains_key(&block) {
            return;
        }
        actions.push(Action::Write(Record { block, name: name.clone(), job: None }));
        let entry = Entry { name, phase: Phase::Writing, tries: 0, cancelling: None, restored: false };
        self.entries.insert(block, entry);
    }

    fn submit_written(&mut self, block: Uuid, actions: &mut Vec<Action>) {
        let Some(entry) = self.entries.get_mut(&block) else { return };
        if !matches!(entry.phase, Phase::Writing) {
            return;
        }
        if entry.cancelling.is_some() {
            return self.end(block, None, false, actions);
        }
        entry.phase = Phase::Submitting;
        actions.push(Action::Submit { block, name: entry.name.clone() });
    }

    fn record_submission(
        &mut self,
        block: Uuid,
        answer: Result<JobId, SubmitError>,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let limit = self.command_limit;
        let Some(entry) = self.entries.get_mut(&block) else { return };
        if !matches!(entry.phase, Phase::Submitting) {
            return;
        }
        match answer {
            Ok(id) => self.open(block, id, actions),
            Err(SubmitError::Refused(words)) => {
                self.forget(block, actions);
                actions.push(Action::Tell { block, news: News::Refused(words) });
            }
            Err(SubmitError::TryAgain(words)) => {
                if entry.cancelling.is_some() {
                    return self.end(block, None, false, actions);
                }
                entry.tries = entry.tries.saturating_add(1);
                entry.phase = Phase::Paused { until: now + pause(entry.tries) };
                actions.push(Action::Tell { block, news: News::Away(words) });
            }
            Err(SubmitError::Unknown(words)) => {
                entry.phase = Phase::Searching { denials: 0, asking: false, next: now + limit };
                actions.push(Action::Tell { block, news: News::Searching(words) });
            }
        }
    }

    fn record_search(
        &mut self,
        block: Uuid,
        answer: Result<Option<JobId>, QueryError>,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let limit = self.command_limit;
        let Some(entry) = self.entries.get_mut(&block) else { return };
        let Phase::Searching { denials, asking, next } = &mut entry.phase else { return };
        (*asking, *next) = (false, now + limit);
        match answer {
            Ok(Some(id)) => self.open(block, id, actions),
            Ok(None) => {
                *denials += 1;
                if *denials >= DENIALS {
                    self.end(block, None, false, actions);
                }
            }
            Err(_) => {}
        }
    }

    fn open(&mut self, block: Uuid, id: JobId, actions: &mut Vec<Action>) {
        let Some(entry) = self.entries.get_mut(&block) else { return };
        entry.phase = Phase::Open(Open::new(id.clone()));
        actions.push(Action::Write(Record { block, name: entry.name.clone(), job: Some(id.clone()) }));
        actions.push(Action::Tell { block, news: News::Submitted(id) });
    }

    fn record_poll(&mut self, verdicts: &Verdicts, now: Duration, actions: &mut Vec<Action>) {
        let blocks: Vec<Uuid> = self.entries.keys().copied().collect();
        for block in blocks {
            let Some(entry) = self.entries.get_mut(&block) else { continue };
            let (restored, cancelled) = (entry.restored, entry.cancelling.is_some());
            let Phase::Open(open) = &mut entry.phase else { continue };
            let verdict = match verdicts.get(&open.id) {
                // After a long time an id is given to another job, which is not ours to cancel.
                Some(Verdict::Known(JobReport { name: Some(name), .. }))
                    if restored && *name != entry.name =>
                {
                    &Verdict::Absent(None)
                }
                Some(verdict) => verdict,
                None => continue,
            };
            let step = match verdict {
                Verdict::Absent(how) => open.deny(how.as_ref(), now, cancelled),
                Verdict::Known(report) => open.show(&report.state, now, cancelled),
            };
            match step {
                Step::Nothing => {}
                Step::Tell(news) => actions.push(Action::Tell { block, news }),
                Step::End { left } => {
                    let (how, ran, told) = (open.ended.take().map(|(_, how)| how), open.ran, open.told);
                    if left || !self.keeps_ended {
                        self.forget(block, actions);
                    } else {
                        open.told = true;
                        entry.cancelling.get_or_insert_default();
                    }
                    if !told {
                        actions.push(Action::Tell { block, news: News::Ended { how, ran } });
                    }
                }
            }
        }
    }

    fn stop_wanting(&mut self, block: Uuid, now: Duration, actions: &mut Vec<Action>) {
        let Some(entry) = self.entries.get_mut(&block) else { return };
        if matches!(entry.phase, Phase::Paused { .. }) {
            return self.end(block, None, false, actions);
        }
        entry.cancelling.get_or_insert(Cancelling { refused: 0, next: now });
    }

    fn record_cancellation(
        &mut self,
        answer: Result<Vec<JobId>, CancelError>,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let Err(CancelError { jobs, reason }) = answer else { return };
        for (&block, entry) in &mut self.entries {
            let Phase::Open(Open { id, .. }) = &entry.phase else { continue };
            let Some(cancelling) = entry.cancelling.as_mut().filter(|_| jobs.contains(id)) else { continue };
            cancelling.refused = cancelling.refused.saturating_add(1);
            cancelling.next = now + pause(cancelling.refused).min(CANCEL_AGAIN);
            if cancelling.refused == CANCELS_BEFORE_WORD {
                let news = News::CannotCancel { job: id.clone(), words: reason.clone() };
                actions.push(Action::Tell { block, news });
            }
        }
    }

    /// What has become due.
    fn go_on(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let mut cancel = Vec::new();
        for (&block, entry) in &mut self.entries {
            match &mut entry.phase {
                Phase::Paused { until } if *until <= now => {
                    entry.phase = Phase::Submitting;
                    actions.push(Action::Submit { block, name: entry.name.clone() });
                }
                Phase::Searching { asking, next, .. } if !*asking && *next <= now => {
                    *asking = true;
                    actions.push(Action::Find { block, name: entry.name.clone() });
                }
                // What an earlier run has left is looked at before it is cancelled.
                Phase::Open(open) if !entry.restored || open.seen => {
                    if let Some(cancelling) = entry.cancelling.as_mut().filter(|it| it.next <= now) {
                        cancelling.next = now + CANCEL_AGAIN;
                        cancel.push(open.id.clone());
                    }
                }
                _ => {}
            }
        }
        if !cancel.is_empty() {
            actions.push(Action::Cancel(cancel));
        }
    }

    /// When [`Event::Tick`] is of use next.
    pub(crate) fn next_tick(&self) -> Option<Duration> {
        let due = |entry: &Entry| match &entry.phase {
            Phase::Paused { until } => Some(*until),
            Phase::Searching { asking: false, next, .. } => Some(*next),
            Phase::Open(open) if !entry.restored || open.seen => {
                entry.cancelling.as_ref().map(|cancelling| cancelling.next)
            }
            _ => None,
        };
        self.entries.values().filter_map(due).min()
    }

    fn end(&mut self, block: Uuid, how: Option<Ended>, ran: bool, actions: &mut Vec<Action>) {
        self.forget(block, actions);
        actions.push(Action::Tell { block, news: News::Ended { how, ran } });
    }

    fn forget(&mut self, block: Uuid, actions: &mut Vec<Action>) {
        self.entries.remove(&block);
        actions.push(Action::Erase(block));
    }
}

impl Entry {
    fn open(&self) -> Option<&Open> {
        match &self.phase {
            Phase::Open(open) => Some(open),
            _ => None,
        }
    }
}

fn pause(tries: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(2u32.saturating_pow(tries.saturating_sub(1)));
    doubled.min(LONGEST_PAUSE)
}

#[cfg(test)]
mod any_order;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
