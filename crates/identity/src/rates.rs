//! Rate limits per identity or address: a number of requests per second, and a larger burst after a pause.
//!
//! Against abuse only: the stock Executor, at its most eager, stays far below the defaults.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

/// Holders remembered, beyond which those that have rested are forgotten, and, if few have, the half that has most left.
const REMEMBERED: usize = 10_000;

/// The requests that one holder may still send.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    requests: f64,
    at: Timestamp,
}

impl Bucket {
    fn filled(self, rate: Rate, now: Timestamp) -> Bucket {
        // If the clock was set back, nothing is added.
        let seconds = now.duration_since(self.at).as_secs_f64().max(0.0);
        Bucket { requests: (self.requests + seconds * rate.each_second).min(rate.at_once), at: now }
    }
}

#[derive(Clone, Copy, Debug)]
struct Rate {
    each_second: f64,
    at_once: f64,
}

/// The buckets of all holders. Clones share them.
#[derive(Debug)]
pub struct RateLimiter<K> {
    rate: Rate,
    buckets: Arc<Mutex<HashMap<K, Bucket>>>,
}

impl<K> Clone for RateLimiter<K> {
    fn clone(&self) -> Self {
        RateLimiter { rate: self.rate, buckets: self.buckets.clone() }
    }
}

impl<K: Eq + Hash + Copy> RateLimiter<K> {
    pub fn new(each_second: u32, at_once: u32) -> RateLimiter<K> {
        let rate = Rate { each_second: f64::from(each_second.max(1)), at_once: f64::from(at_once.max(1)) };
        RateLimiter { rate, buckets: Arc::default() }
    }

    /// Counts a request of `holder`. Over the limit, returns the seconds to wait.
    pub fn take(&self, holder: K, now: Timestamp) -> Result<(), u32> {
        // A panic while it was held cannot have left it half changed.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= REMEMBERED && !buckets.contains_key(&holder) {
            buckets.retain(|_, bucket| bucket.filled(self.rate, now).requests < self.rate.at_once);
            // Few of them have rested: half goes, rather than to look through them all the time. Who has most left gains
            // least by being forgotten; who has used up what they may stays.
            if buckets.len() > REMEMBERED / 2 {
                let mut left: Vec<_> = buckets
                    .iter()
                    .map(|(holder, bucket)| (bucket.filled(self.rate, now).requests, *holder))
                    .collect();
                left.select_nth_unstable_by(REMEMBERED / 2, |(one, _), (other, _)| one.total_cmp(other));
                for (_, holder) in &left[REMEMBERED / 2..] {
                    buckets.remove(holder);
                }
            }
        }
        let full = Bucket { requests: self.rate.at_once, at: now };
        let bucket = buckets.entry(holder).or_insert(full);
        *bucket = bucket.filled(self.rate, now);
        if bucket.requests >= 1.0 {
            bucket.requests -= 1.0;
            return Ok(());
        }
        let seconds = ((1.0 - bucket.requests) / self.rate.each_second).ceil();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 1 and 1
        Err(seconds.clamp(1.0, 3600.0) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    #[test]
    fn so_many_at_once_and_then_so_many_a_second() {
        let rates = RateLimiter::new(2, 3);
        let (one, other) = (1, 2);
        let at = |millis| Timestamp::UNIX_EPOCH + SignedDuration::from_millis(millis);
        for _ in 0..3 {
            rates.take(one, at(0)).unwrap();
        }
        assert_eq!(rates.take(one, at(0)), Err(1));
        rates.take(other, at(0)).unwrap();
        assert_eq!(rates.take(one, at(499)), Err(1));
        rates.take(one, at(500)).unwrap();
        assert_eq!(rates.take(one, at(500)), Err(1));
        assert_eq!(rates.take(one, at(0)), Err(1), "the clock went back");
        for _ in 0..3 {
            rates.take(one, at(60_000)).unwrap();
        }
        assert_eq!(rates.take(one, at(60_000)), Err(1), "no more than at once, however long the rest");
    }

    #[test]
    fn however_many_come_who_has_used_up_what_they_may_waits() {
        let rates = RateLimiter::new(1, 2);
        let now = Timestamp::UNIX_EPOCH;
        let exhausted = 0;
        for _ in 0..2 {
            rates.take(exhausted, now).unwrap();
        }
        for holder in 1..=20_000 {
            rates.take(holder, now).unwrap();
        }
        assert_eq!(rates.take(exhausted, now), Err(1));
    }

    #[test]
    fn it_stays_small_however_many_come() {
        let rates = RateLimiter::new(1, 2);
        for holder in 0..100_000 {
            rates.take(holder, Timestamp::UNIX_EPOCH).unwrap();
        }
        assert!(rates.buckets.lock().unwrap().len() <= REMEMBERED);
    }
}
