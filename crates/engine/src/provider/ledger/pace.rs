//! When to ask the scheduler: one poll a period, and a few at once when a node's link breaks.
//!
//! Sites throttle users who ask more often. Under a manager, all user endpoints of a host together ask no more than once a
//! second. Without open jobs nothing is asked.

use std::time::Duration;

/// The period for few endpoints.
const PERIOD: Duration = Duration::from_secs(60);

/// The pause between polls that something has hastened, and how many follow: tables lag behind the end of a job.
const HASTE_PAUSE: Duration = Duration::from_secs(2);
const HASTENED: u32 = 3;

/// The longest pause while the scheduler does not answer.
const LONGEST: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(crate) struct Pace {
    period: Duration,
    last: Option<Duration>,
    asking: bool,
    hastened: u32,
    unanswered: u32,
}

impl Pace {
    /// The pace of one of so many user endpoints on this host.
    pub(crate) fn new(user_endpoints: u32) -> Self {
        let mut pace = Self { period: PERIOD, last: None, asking: false, hastened: 0, unanswered: 0 };
        pace.set_user_endpoints(user_endpoints);
        pace
    }

    pub(crate) fn set_user_endpoints(&mut self, count: u32) {
        self.period = PERIOD.max(Duration::from_secs(count.into()));
    }

    /// A node's link has broken: its job may have ended. Many at once are one reason.
    pub(crate) fn hasten(&mut self) {
        self.hastened = HASTENED;
    }

    /// When to poll next, if any job is open and no poll is under way.
    pub(crate) fn next(&self, open_jobs: usize) -> Option<Duration> {
        if open_jobs == 0 || self.asking {
            return None;
        }
        let Some(last) = self.last else { return Some(Duration::ZERO) };
        let pause = match (self.unanswered, self.hastened) {
            (0, 0) => self.period,
            (0, _) => HASTE_PAUSE,
            // A scheduler that does not answer is not hastened.
            (tries, _) => self
                .period
                .saturating_mul(2u32.saturating_pow(tries.saturating_sub(1)))
                .min(LONGEST.max(self.period)),
        };
        Some(last + pause)
    }

    pub(crate) fn begin(&mut self, now: Duration) {
        self.asking = true;
        self.hastened = self.hastened.saturating_sub(1);
        self.last = Some(now);
    }

    /// The poll is over. Its period counts from its beginning, but a slow scheduler is never asked without a pause.
    pub(crate) fn end(&mut self, now: Duration, answered: bool) {
        self.asking = false;
        self.last = self.last.map(|last| last.max(now.saturating_sub(self.period / 2)));
        self.unanswered = if answered { 0 } else { self.unanswered.saturating_add(1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn poll(pace: &mut Pace, from: u64, to: u64, answered: bool) {
        pace.begin(at(from));
        assert_eq!(pace.next(1), None, "one poll at a time");
        pace.end(at(to), answered);
    }

    #[test]
    fn one_poll_a_period_and_none_without_jobs() {
        let mut pace = Pace::new(1);
        assert_eq!((pace.next(0), pace.next(1)), (None, Some(at(0))));
        poll(&mut pace, 100, 101, true);
        assert_eq!((pace.next(0), pace.next(1000)), (None, Some(at(160))));
        poll(&mut pace, 160, 260, true);
        assert_eq!(pace.next(1), Some(at(290)), "a slow scheduler gets a pause");
    }

    #[test]
    fn many_broken_links_are_one_reason_for_a_few_polls() {
        let mut pace = Pace::new(1);
        poll(&mut pace, 100, 100, true);
        for _ in 0..50 {
            pace.hasten();
        }
        assert_eq!(pace.next(1), Some(at(102)));
        for from in [110, 112, 114] {
            assert_eq!(pace.next(1), Some(at(if from == 110 { 102 } else { from })));
            poll(&mut pace, from, from, true);
        }
        assert_eq!(pace.next(1), Some(at(174)));
    }

    #[test]
    fn endpoints_of_one_host_share_a_poll_a_second() {
        let mut pace = Pace::new(500);
        poll(&mut pace, 0, 0, true);
        assert_eq!(pace.next(1), Some(at(500)));
        pace.set_user_endpoints(10);
        assert_eq!(pace.next(1), Some(at(60)));
    }

    #[test]
    fn a_scheduler_that_is_away_is_asked_less_and_less() {
        let mut pace = Pace::new(1);
        for pause in [60, 120, 240, 480, 600, 600] {
            poll(&mut pace, 1000, 1000, false);
            pace.hasten();
            assert_eq!(pace.next(1), Some(at(1000 + pause)));
        }
        poll(&mut pace, 1000, 1000, true);
        assert_eq!(pace.next(1), Some(at(1002)), "it answers again");
    }
}
