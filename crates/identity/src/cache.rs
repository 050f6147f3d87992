//! Caches rows of the store for some seconds.
//!
//! A value is used for [`MAX_AGE`] at most, so that changes by another process of the service take effect within that time.
//! The process [removes](Cache::forget) what it changes itself at once; a read that began before the change does not put
//! the old value back.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};

use store::StoreError;

/// How long a value is used before the store is read again.
pub const MAX_AGE: SignedDuration = SignedDuration::from_secs(5);
/// The most values in a cache.
const MOST: usize = 16_384;

/// A cache of values by key. Clones share it.
#[derive(Debug)]
pub(super) struct Cache<K, V>(Arc<Mutex<Inner<K, V>>>);

#[derive(Debug)]
struct Inner<K, V> {
    values: HashMap<K, Cached<V>>,
    /// Grows with each removal.
    epoch: u64,
}

#[derive(Debug)]
struct Cached<V> {
    value: V,
    at: Timestamp,
}

impl<K, V> Clone for Cache<K, V> {
    fn clone(&self) -> Self {
        Cache(self.0.clone())
    }
}

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Cache(Arc::new(Mutex::new(Inner { values: HashMap::new(), epoch: 0 })))
    }
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    /// The value of `key`, from the cache or else from `read`. A missing value is not cached.
    pub(super) async fn get(
        &self,
        key: K,
        now: Timestamp,
        read: impl Future<Output = Result<Option<V>, StoreError>>,
    ) -> Result<Option<V>, StoreError> {
        let epoch = {
            let inner = self.inner();
            match inner.values.get(&key) {
                Some(known) if is_fresh(known.at, now) => return Ok(Some(known.value.clone())),
                _ => inner.epoch,
            }
        };
        let found = read.await?;
        let mut inner = self.inner();
        if inner.epoch == epoch {
            match &found {
                Some(value) => inner.insert(key, value.clone(), now),
                None => {
                    inner.values.remove(&key);
                }
            }
        }
        Ok(found)
    }

    /// Removes every value for which `gone` is true.
    pub(super) fn forget(&self, gone: impl Fn(&K, &V) -> bool) {
        let mut inner = self.inner();
        inner.epoch += 1;
        inner.values.retain(|key, known| !gone(key, &known.value));
    }

    fn inner(&self) -> MutexGuard<'_, Inner<K, V>> {
        // A panic while it was held can't have left it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash, V> Inner<K, V> {
    fn insert(&mut self, key: K, value: V, at: Timestamp) {
        if self.values.len() >= MOST {
            self.values.retain(|_, known| is_fresh(known.at, at));
            // Mostly fresh ones: clear the cache rather than scan it at each insert.
            if self.values.len() > MOST / 2 {
                self.values.clear();
            }
        }
        self.values.insert(key, Cached { value, at });
    }
}

fn is_fresh(at: Timestamp, now: Timestamp) -> bool {
    // A clock that was set back must not make a value live longer.
    (SignedDuration::ZERO..MAX_AGE).contains(&now.duration_since(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::UNIX_EPOCH;

    async fn get(cache: &Cache<u32, u32>, key: u32, at: i64, stored: Option<u32>) -> Option<u32> {
        cache.get(key, START + SignedDuration::from_millis(at), async { Ok(stored) }).await.unwrap()
    }

    #[tokio::test]
    async fn a_value_is_believed_for_a_while() {
        let cache = Cache::default();
        assert_eq!(get(&cache, 1, 0, Some(10)).await, Some(10));
        assert_eq!(get(&cache, 1, 4_999, None).await, Some(10), "remembered");
        assert_eq!(get(&cache, 1, 5_000, Some(11)).await, Some(11), "read again");
        assert_eq!(get(&cache, 1, 0, Some(12)).await, Some(12), "the clock was set back");
        assert_eq!(get(&cache, 2, 0, None).await, None);
        assert_eq!(get(&cache, 2, 1, Some(20)).await, Some(20), "nothing is not remembered");
    }

    #[tokio::test]
    async fn what_is_forgotten_is_read_again_and_no_read_brings_it_back() {
        let cache = Cache::default();
        get(&cache, 1, 0, Some(10)).await;
        get(&cache, 2, 0, Some(20)).await;
        cache.forget(|_, value| *value == 10);
        assert_eq!(get(&cache, 1, 1, None).await, None);
        assert_eq!(get(&cache, 2, 1, None).await, Some(20));
        let other = cache.clone();
        let slow = cache.get(3, START, async move {
            other.forget(|_, _| true);
            Ok(Some(30))
        });
        assert_eq!(slow.await.unwrap(), Some(30), "as it was when the read began");
        assert_eq!(get(&cache, 3, 1, None).await, None);
    }

    #[tokio::test]
    async fn it_stays_small() {
        let cache = Cache::default();
        for key in 0..100_000 {
            get(&cache, key, 0, Some(key)).await;
        }
        assert!(cache.inner().values.len() <= MOST);
    }
}
