//! How fast one local user may write to the audit log, through all of its user endpoints together. Users own the other ends
//! of the pipes: without a limit, one user could fill the disk, and then nobody's user endpoints may run any more.
//!
//! Who writes more is held back: the pipes fill, and the user endpoints wait. The administrator is told. Records in their
//! usual form are only held back, however long: a busy user loses nothing. A user whose processes write something else
//! without end misuses the log.

use std::time::Duration;

/// How many bytes a user may write at once: the records of more than ten thousand tasks.
const BURST: u64 = 16 * 1024 * 1024;
/// How many bytes a second a user may write for long: about a hundred records.
const RATE: u64 = 32 * 1024;
/// How long a user is held back before the administrator is told, and how often it is told again.
const WARNED_AFTER: Duration = Duration::from_secs(10);
const WARNED_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// How long a user is held back, writing mostly things that are no records, before its user endpoints are ended.
const ENDED_AFTER: Duration = Duration::from_secs(60);
/// How many bytes of no records are no misuse: a user who is deep in debt writes little else.
const FEW: u64 = 64 * 1024;

/// What must be done about a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    /// Tell the administrator.
    HeldBack,
    /// End the user's user endpoints.
    Misuse,
}

/// What one local user may still write. Pure.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// When all that was written has been earned, at [`RATE`].
    earned_at: Duration,
    held_back: Option<HeldBack>,
}

/// A user that is held back.
#[derive(Debug)]
struct HeldBack {
    since: Duration,
    warned_at: Option<Duration>,
    /// What it wrote since it first wrote something that is no record, or since that was judged.
    suspicion: Option<Suspicion>,
}

/// What a user wrote in at most about [`ENDED_AFTER`], in bytes.
#[derive(Debug)]
struct Suspicion {
    since: Duration,
    all: u64,
    no_records: u64,
}

impl Budget {
    /// Takes a line of this length, and says how long to wait before the next one, and what must be done about the user.
    pub(super) fn take(
        &mut self,
        length: usize,
        is_record: bool,
        now: Duration,
    ) -> (Duration, Option<Excess>) {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        self.earned_at = self.earned_at.max(now) + time_for(length);
        let pause = self.earned_at.saturating_sub(now).saturating_sub(time_for(BURST));
        if pause.is_zero() {
            self.held_back = None;
            return (pause, None);
        }
        let held = self.held_back.get_or_insert(HeldBack { since: now, warned_at: None, suspicion: None });
        (pause, held.excess(length, is_record, now))
    }

    /// Whether a new budget would be the same.
    pub(super) fn is_unused(&self, now: Duration) -> bool {
        self.earned_at <= now
    }
}

impl HeldBack {
    fn excess(&mut self, length: u64, is_record: bool, now: Duration) -> Option<Excess> {
        if self.misuses(length, is_record, now) {
            return Some(Excess::Misuse);
        }
        let due = self.warned_at.map_or(self.since + WARNED_AFTER, |last| last + WARNED_AGAIN_AFTER);
        (due <= now).then(|| {
            self.warned_at = Some(now);
            Excess::HeldBack
        })
    }

    /// Whether at least half of what it wrote in the last minute is no records. A few lines of another form are none: a task
    /// that prints to a descriptor of its user endpoint makes them.
    fn misuses(&mut self, length: u64, is_record: bool, now: Duration) -> bool {
        if is_record && self.suspicion.is_none() {
            return false;
        }
        let suspicion = self.suspicion.get_or_insert(Suspicion { since: now, all: 0, no_records: 0 });
        suspicion.all = suspicion.all.saturating_add(length);
        if !is_record {
            suspicion.no_records = suspicion.no_records.saturating_add(length);
        }
        if now.saturating_sub(suspicion.since) < ENDED_AFTER {
            return false;
        }
        let of_records = suspicion.all.saturating_sub(suspicion.no_records);
        let misuses = suspicion.no_records > FEW && suspicion.no_records >= of_records;
        self.suspicion = None;
        misuses
    }
}

fn time_for(bytes: u64) -> Duration {
    Duration::from_micros(bytes.saturating_mul(1_000_000) / RATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// What a writer that does not stop has written after this time, and what was done about it.
    fn flood(budget: &mut Budget, is_record: bool, from: Duration, until: Duration) -> (u64, Vec<Excess>) {
        let (mut now, mut written, mut done) = (from, 0, Vec::new());
        while now < until {
            let (pause, excess) = budget.take(4_096, is_record, now);
            now += pause + Duration::from_micros(10);
            written += 4_096;
            done.extend(excess);
        }
        (written, done)
    }

    #[test]
    fn a_writer_that_does_not_stop_gets_its_rate() {
        let mut budget = Budget::default();
        let (written, done) = flood(&mut budget, true, 5 * SECOND, 205 * SECOND);
        let most = BURST + 201 * RATE;
        assert!((most * 9 / 10..=most + 4_096).contains(&written), "{written} of {most}");
        // After 10 s, 70 s, 130 s and 190 s: records are held back, and nothing else.
        assert_eq!(done, [Excess::HeldBack; 4]);
        assert!(!budget.is_unused(206 * SECOND) && budget.is_unused(1_000 * SECOND));
    }

    #[test]
    fn a_writer_of_something_else_is_ended_after_a_minute_and_again_when_it_goes_on() {
        let (_, done) = flood(&mut Budget::default(), false, SECOND, 131 * SECOND);
        let expected = [Excess::HeldBack, Excess::Misuse, Excess::HeldBack, Excess::Misuse];
        assert_eq!(done, expected);
    }

    #[test]
    fn a_few_lines_that_are_no_records_end_nobody_who_is_held_back_for_long() {
        let (mut budget, mut now, mut done) = (Budget::default(), SECOND, Vec::new());
        let mut number = 0_u64;
        while now < 300 * SECOND {
            // One in 20: every few seconds.
            let (pause, excess) = budget.take(4_096, !number.is_multiple_of(20), now);
            now += pause + Duration::from_micros(10);
            number += 1;
            done.extend(excess);
        }
        // Deep in debt, two lines may be all that it writes in a minute.
        budget.take(8 << 20, true, now);
        for _ in 0..2 {
            now += ENDED_AFTER;
            done.extend(budget.take(200, false, now).1);
        }
        assert!(!done.is_empty());
        assert!(done.iter().all(|it| *it == Excess::HeldBack), "{done:?}");
    }

    #[test]
    fn a_usual_writer_never_waits() {
        let (mut budget, mut now) = (Budget::default(), SECOND);
        for _ in 0..100_000 {
            now += Duration::from_millis(10);
            assert_eq!(budget.take(300, true, now), (Duration::ZERO, None));
        }
        // Ten thousand tasks at once, with four records each.
        for _ in 0..40_000 {
            assert_eq!(budget.take(300, true, now), (Duration::ZERO, None));
        }
    }

    #[test]
    fn several_pipes_share() {
        let mut budget = Budget::default();
        let now = SECOND;
        let mut written = 0;
        while budget.take(4_096, true, now).0.is_zero() {
            written += 4_096;
        }
        assert!(written <= BURST);
        // Each further packet waits for those of the others.
        let pauses: Vec<Duration> = (0..3).map(|_| budget.take(4_096, true, now).0).collect();
        assert!(pauses.is_sorted() && pauses[2] > pauses[0] + Duration::from_millis(200), "{pauses:?}");
    }
}
