//! Limits the memory for large message bodies that are being received.
//!
//! A body waits until there is room. One quota owner can't take more than half of what the others leave, so that bodies
//! which are announced and never sent delay only their own sender.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The room for all. Clones share it.
#[derive(Clone)]
pub(crate) struct BodyQuota(Arc<Mutex<Inner>>);

struct Inner {
    size: usize,
    all: usize,
    by_owner: HashMap<Arc<str>, usize>,
    /// In the order in which they asked; the first that fits is next.
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    owner: Arc<str>,
    amount: usize,
    granted: oneshot::Sender<Permit>,
}

/// Room that was taken. Dropping it gives it back.
pub(crate) struct Permit {
    quota: BodyQuota,
    owner: Arc<str>,
    pub(crate) amount: usize,
}

impl Inner {
    fn fits(&self, owner: &Arc<str>, amount: usize) -> bool {
        let own = self.by_owner.get(owner).copied().unwrap_or(0);
        own + amount <= self.size.saturating_sub(self.all - own) / 2
    }

    fn take(&mut self, owner: &Arc<str>, amount: usize) {
        self.all += amount;
        *self.by_owner.entry(owner.clone()).or_default() += amount;
    }

    /// Takes room for the next one that fits.
    fn next(&mut self) -> Option<Waiting> {
        self.waiting.retain(|it| !it.granted.is_closed());
        let next = self.waiting.iter().position(|it| self.fits(&it.owner, it.amount))?;
        let next = self.waiting.remove(next)?;
        self.take(&next.owner, next.amount);
        Some(next)
    }
}

impl BodyQuota {
    pub(crate) fn new(size: usize) -> BodyQuota {
        let (by_owner, waiting) = (HashMap::new(), VecDeque::new());
        BodyQuota(Arc::new(Mutex::new(Inner { size, all: 0, by_owner, waiting })))
    }

    /// The most that one owner can take.
    pub(crate) fn most(&self) -> usize {
        self.inner().size / 2
    }

    /// Waits for room of `amount` for `owner`. It must not be more than [`most`](Self::most).
    pub(crate) async fn take(self, owner: Arc<str>, amount: usize) -> Option<Permit> {
        let granted = {
            let mut inner = self.inner();
            if inner.fits(&owner, amount) {
                inner.take(&owner, amount);
                drop(inner);
                return Some(Permit { quota: self, owner, amount });
            }
            let (sender, granted) = oneshot::channel();
            inner.waiting.push_back(Waiting { owner, amount, granted: sender });
            granted
        };
        granted.await.ok()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Adds another permit of the same owner.
    pub(crate) fn merge(&mut self, mut other: Permit) {
        self.amount += std::mem::take(&mut other.amount);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.amount == 0 {
            return;
        }
        let mut inner = self.quota.inner();
        inner.all -= self.amount;
        if let Some(own) = inner.by_owner.get_mut(&self.owner) {
            *own -= self.amount;
            if *own == 0 {
                inner.by_owner.remove(&self.owner);
            }
        }
        drop(inner);
        loop {
            let Some(Waiting { owner, amount, granted }) = self.quota.inner().next() else { return };
            // When the receiver is gone meanwhile, the permit is dropped, which gives the room back.
            let _ = granted.send(Permit { quota: self.quota.clone(), owner, amount });
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn an_owner_that_announces_much_delays_only_itself() {
        let room = BodyQuota::new(100);
        let take = |owner: &str, amount| Box::pin(room.clone().take(owner.into(), amount));
        let first = take("a", 50).await.unwrap();
        let mut waiting: Vec<_> = (0..3).map(|_| take("a", 20)).collect();
        for waits in &mut waiting {
            assert!(waits.now_or_never().is_none());
        }
        let other = take("b", 25).await.unwrap();
        assert!(take("c", 13).now_or_never().is_none(), "beyond half of what is left");
        let third = take("c", 12).await.unwrap();
        drop(other);
        drop(third);
        assert!((&mut waiting[0]).now_or_never().is_none(), "its own is still there");
        drop(waiting.pop());
        drop(first);
        let mut second = waiting.remove(0).await.unwrap();
        second.merge(waiting.remove(0).await.unwrap());
        assert_eq!((second.amount, room.inner().all), (40, 40));
        drop(second);
        let inner = room.inner();
        assert_eq!(
            (inner.all, inner.by_owner.len(), inner.waiting.len()),
            (0, 0, 0),
            "nothing is kept for owners that are gone"
        );
    }
}
