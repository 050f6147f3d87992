//! The rule against runaway jobs: three in a row that ran and brought no node end the asking for more.
//!
//! A wrong `worker_init` then costs three jobs, not an allocation. Jobs that the cluster ended (a node that failed, a
//! preemption) and jobs that never ran say nothing about the configuration, and don't count. While tasks wait, one job is
//! tried after 1, 5, then every 30 minutes; the first node that joins ends it all.

use std::time::Duration;

/// So many jobs in a row.
const IN_A_ROW: u32 = 3;

const MINUTE: Duration = Duration::from_secs(60);

/// The pauses before a probe; the last one repeats.
const PAUSES: [Duration; 3] = [MINUTE, MINUTE.saturating_mul(5), MINUTE.saturating_mul(30)];

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    NodeJoined,
    JobEnded {
        ran: bool,
        had_node: bool,
        /// The cluster ended it, or we have cancelled it.
        excused: bool,
        /// Why, with the last lines of its errors.
        report: String,
    },
    /// Time passes; some tasks wait, or none.
    Tick {
        tasks_wait: bool,
    },
}

/// What must be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Cancel the jobs that wait in the queue.
    WithdrawPending,
    /// Fail the tasks that wait, with this text.
    FailTasks(String),
    /// Ask for one block.
    Probe,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Withdrawn {
    pause: usize,
    next: Duration,
    probing: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Runaway {
    failed: u32,
    withdrawn: Option<Withdrawn>,
}

impl Runaway {
    pub(crate) fn apply(&mut self, event: Event, now: Duration) -> Vec<Action> {
        match event {
            Event::NodeJoined => {
                *self = Self::default();
                Vec::new()
            }
            Event::JobEnded { had_node: true, .. } => Vec::new(),
            Event::JobEnded { ran, excused, report, .. } => {
                let counts = ran && !excused;
                self.record_end(counts, report, now)
            }
            Event::Tick { tasks_wait } => match &mut self.withdrawn {
                Some(withdrawn) if tasks_wait && !withdrawn.probing && withdrawn.next <= now => {
                    withdrawn.probing = true;
                    vec![Action::Probe]
                }
                _ => Vec::new(),
            },
        }
    }

    fn record_end(&mut self, counts: bool, report: String, now: Duration) -> Vec<Action> {
        match &mut self.withdrawn {
            Some(withdrawn) if !withdrawn.probing => Vec::new(), // one of those that were withdrawn
            Some(withdrawn) => {
                withdrawn.probing = false;
                if counts {
                    withdrawn.pause = (withdrawn.pause + 1).min(PAUSES.len() - 1);
                }
                withdrawn.next = now + PAUSES[withdrawn.pause];
                if counts { vec![Action::FailTasks(report)] } else { Vec::new() }
            }
            None if !counts => Vec::new(),
            None => {
                self.failed += 1;
                if self.failed < IN_A_ROW {
                    return Vec::new();
                }
                self.withdrawn = Some(Withdrawn { pause: 0, next: now + PAUSES[0], probing: false });
                vec![Action::WithdrawPending, Action::FailTasks(report)]
            }
        }
    }

    /// Whether scaling may ask for blocks.
    pub(crate) fn may_ask(&self) -> bool {
        self.withdrawn.is_none()
    }

    /// When the next probe is due, for the status.
    pub(crate) fn next_probe(&self) -> Option<Duration> {
        self.withdrawn.as_ref().filter(|withdrawn| !withdrawn.probing).map(|withdrawn| withdrawn.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(ran: bool, excused: bool) -> Event {
        Event::JobEnded { ran, had_node: false, excused, report: "module: not found".into() }
    }

    fn minutes(minutes: u64) -> Duration {
        MINUTE * u32::try_from(minutes).unwrap()
    }

    const WAIT: Event = Event::Tick { tasks_wait: true };

    fn fail() -> Action {
        Action::FailTasks("module: not found".into())
    }

    #[test]
    fn three_jobs_without_a_node_end_the_asking() {
        let mut rule = Runaway::default();
        for _ in 0..2 {
            assert_eq!(rule.apply(ended(true, false), minutes(0)), []);
            assert!(rule.may_ask());
        }
        assert_eq!(rule.apply(ended(true, false), minutes(0)), [Action::WithdrawPending, fail()]);
        assert!(!rule.may_ask());
        // Those that were withdrawn end, too.
        assert_eq!(rule.apply(ended(false, true), minutes(0)), []);
        assert_eq!(rule.next_probe(), Some(minutes(1)));
    }

    #[test]
    fn probes_follow_after_1_5_and_every_30_minutes_while_tasks_wait() {
        let mut rule = Runaway::default();
        for _ in 0..3 {
            rule.apply(ended(true, false), minutes(0));
        }
        let mut now = minutes(0);
        for pause in [1, 5, 30, 30, 30] {
            assert_eq!(rule.apply(WAIT, now + minutes(pause) - Duration::from_secs(1)), []);
            now += minutes(pause);
            assert_eq!(rule.apply(Event::Tick { tasks_wait: false }, now), [], "nobody waits for it");
            assert_eq!(rule.apply(WAIT, now), [Action::Probe]);
            assert_eq!(rule.apply(WAIT, now + minutes(60)), [], "one at a time");
            assert_eq!(rule.apply(ended(true, false), now), [fail()]);
        }
        assert_eq!(rule.apply(WAIT, now + minutes(30)), [Action::Probe]);
        assert_eq!(rule.apply(Event::NodeJoined, now + minutes(31)), []);
        assert!(rule.may_ask() && rule.next_probe().is_none());
    }

    #[test]
    fn outages_and_jobs_that_never_ran_do_not_count() {
        let mut rule = Runaway::default();
        for _ in 0..10 {
            rule.apply(ended(true, true), minutes(0));
            rule.apply(ended(false, false), minutes(0));
        }
        assert!(rule.may_ask());
        rule.apply(ended(true, false), minutes(0));
        rule.apply(ended(true, false), minutes(0));
        rule.apply(Event::NodeJoined, minutes(0));
        rule.apply(ended(true, false), minutes(0));
        assert!(rule.may_ask(), "a node between them: not in a row");
        rule.apply(ended(true, false), minutes(0));
        rule.apply(ended(true, false), minutes(0));
        assert!(!rule.may_ask());
        // A probe that an outage ended is repeated after the same pause.
        assert_eq!(rule.apply(WAIT, minutes(1)), [Action::Probe]);
        assert_eq!(rule.apply(ended(true, true), minutes(2)), []);
        assert_eq!(rule.apply(WAIT, minutes(3)), [Action::Probe]);
    }
}
