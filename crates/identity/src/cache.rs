//! What was read from the store a moment ago.
//!
//! A memory believes what it has read for [`BELIEVED`], no longer: so what another process of the service changes
//! takes effect here within that time. What this process changes it [forgets](Memory::forget) at once; a read that had
//! begun before doesn't bring the old value back.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};

use store::StoreError;

/// How long a value is believed without looking at the store again.
pub const BELIEVED: SignedDuration = SignedDuration::from_secs(5);
/// Values remembered.
const MOST: usize = 16_384;

/// Values by their keys. Clones share them.
#[derive(Debug)]
pub(super) struct Memory<K, V>(Arc<Mutex<Inner<K, V>>>);

#[derive(Debug)]
struct Inner<K, V> {
    values: HashMap<K, Read<V>>,
    /// Grows with everything that is forgotten.
    epoch: u64,
}

#[derive(Debug)]
struct Read<V> {
    value: V,
    at: Timestamp,
}

impl<K, V> Clone for Memory<K, V> {
    fn clone(&self) -> Self {
        Memory(self.0.clone())
    }
}

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Memory(Arc::new(Mutex::new(Inner { values: HashMap::new(), epoch: 0 })))
    }
}

impl<K: Eq + Hash, V: Clone> Memory<K, V> {
    /// The value of `key`: remembered, or else as `read` finds it. What isn't there is not remembered.
    pub(super) async fn get(
        &self,
        key: K,
        now: Timestamp,
        read: impl Future<Output = Result<Option<V>, StoreError>>,
    ) -> Result<Option<V>, StoreError> {
        let epoch = {
            let inner = self.inner();
            match inner.values.get(&key) {
                Some(known) if believed(known.at, now) => return Ok(Some(known.value.clone())),
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

    /// Forgets every value that `gone` says.
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
            self.values.retain(|_, known| believed(known.at, at));
            // Mostly fresh ones: begin again rather than look through them all the time.
            if self.values.len() > MOST / 2 {
                self.values.clear();
            }
        }
        self.values.insert(key, Read { value, at });
    }
}

fn believed(at: Timestamp, now: Timestamp) -> bool {
    // A clock that was set back must not make a value live longer.
    (SignedDuration::ZERO..BELIEVED).contains(&now.duration_since(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::UNIX_EPOCH;

    async fn get(memory: &Memory<u32, u32>, key: u32, at: i64, stored: Option<u32>) -> Option<u32> {
        memory.get(key, START + SignedDuration::from_millis(at), async { Ok(stored) }).await.unwrap()
    }

    #[tokio::test]
    async fn a_value_is_believed_for_a_while() {
        let memory = Memory::default();
        assert_eq!(get(&memory, 1, 0, Some(10)).await, Some(10));
        assert_eq!(get(&memory, 1, 4_999, None).await, Some(10), "remembered");
        assert_eq!(get(&memory, 1, 5_000, Some(11)).await, Some(11), "read again");
        assert_eq!(get(&memory, 1, 0, Some(12)).await, Some(12), "the clock was set back");
        assert_eq!(get(&memory, 2, 0, None).await, None);
        assert_eq!(get(&memory, 2, 1, Some(20)).await, Some(20), "nothing is not remembered");
    }

    #[tokio::test]
    async fn what_is_forgotten_is_read_again_and_no_read_brings_it_back() {
        let memory = Memory::default();
        get(&memory, 1, 0, Some(10)).await;
        get(&memory, 2, 0, Some(20)).await;
        memory.forget(|_, value| *value == 10);
        assert_eq!(get(&memory, 1, 1, None).await, None);
        assert_eq!(get(&memory, 2, 1, None).await, Some(20));
        let other = memory.clone();
        let slow = memory.get(3, START, async move {
            other.forget(|_, _| true);
            Ok(Some(30))
        });
        assert_eq!(slow.await.unwrap(), Some(30), "as it was when the read began");
        assert_eq!(get(&memory, 3, 1, None).await, None);
    }

    #[tokio::test]
    async fn it_stays_small() {
        let memory = Memory::default();
        for key in 0..100_000 {
            get(&memory, key, 0, Some(key)).await;
        }
        assert!(memory.inner().values.len() <= MOST);
    }
}
