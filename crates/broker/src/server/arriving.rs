//! Room for large bodies on their way. Whoever needs some waits for a turn; nobody holds more than half of what the others
//! leave, so that bodies which are promised and never come hold up their own sender only.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The room. Clones share it.
#[derive(Clone)]
pub(crate) struct Arriving(Arc<Mutex<Inner>>);

struct Inner {
    size: usize,
    all: usize,
    each: HashMap<Arc<str>, usize>,
    /// In the order in which they came; the first that fits is next.
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    holder: Arc<str>,
    amount: usize,
    turn: oneshot::Sender<Share>,
}

/// What somebody holds. It is given back when this is dropped.
pub(crate) struct Share {
    room: Arriving,
    holder: Arc<str>,
    pub(crate) amount: usize,
}

impl Inner {
    fn fits(&self, holder: &Arc<str>, amount: usize) -> bool {
        let own = self.each.get(holder).copied().unwrap_or(0);
        own + amount <= self.size.saturating_sub(self.all - own) / 2
    }

    fn take(&mut self, holder: &Arc<str>, amount: usize) {
        self.all += amount;
        *self.each.entry(holder.clone()).or_default() += amount;
    }

    /// Takes for the next who has a turn.
    fn next(&mut self) -> Option<Waiting> {
        self.waiting.retain(|it| !it.turn.is_closed());
        let next = self.waiting.iter().position(|it| self.fits(&it.holder, it.amount))?;
        let next = self.waiting.remove(next)?;
        self.take(&next.holder, next.amount);
        Some(next)
    }
}

impl Arriving {
    pub(crate) fn new(size: usize) -> Arriving {
        let (each, waiting) = (HashMap::new(), VecDeque::new());
        Arriving(Arc::new(Mutex::new(Inner { size, all: 0, each, waiting })))
    }

    /// The most that one holder can have.
    pub(crate) fn most(&self) -> usize {
        self.inner().size / 2
    }

    /// `amount` for `holder`, when it is their turn. It must not be more than [`most`](Self::most).
    pub(crate) async fn take(self, holder: Arc<str>, amount: usize) -> Option<Share> {
        let turn = {
            let mut inner = self.inner();
            if inner.fits(&holder, amount) {
                inner.take(&holder, amount);
                drop(inner);
                return Some(Share { room: self, holder, amount });
            }
            let (sender, turn) = oneshot::channel();
            inner.waiting.push_back(Waiting { holder, amount, turn: sender });
            turn
        };
        turn.await.ok()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// What both hold, together. They are of one holder.
    pub(crate) fn merge(&mut self, mut other: Share) {
        self.amount += std::mem::take(&mut other.amount);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.amount == 0 {
            return;
        }
        let mut inner = self.room.inner();
        inner.all -= self.amount;
        if let Some(own) = inner.each.get_mut(&self.holder) {
            *own -= self.amount;
            if *own == 0 {
                inner.each.remove(&self.holder);
            }
        }
        drop(inner);
        loop {
            let Some(Waiting { holder, amount, turn }) = self.room.inner().next() else { return };
            // One that has left meanwhile gives it back at once.
            let _ = turn.send(Share { room: self.room.clone(), holder, amount });
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_promises_much_holds_up_nobody_else() {
        let room = Arriving::new(100);
        let take = |holder: &str, amount| Box::pin(room.clone().take(holder.into(), amount));
        let first = take("a", 50).await.unwrap();
        let mut waiting: Vec<_> = (0..3).map(|_| take("a", 20)).collect();
        for turn in &mut waiting {
            assert!(turn.now_or_never().is_none());
        }
        let other = take("b", 25).await.unwrap();
        assert!(take("c", 13).now_or_never().is_none(), "and leaves");
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
            (inner.all, inner.each.len(), inner.waiting.len()),
            (0, 0, 0),
            "nothing is kept of who left"
        );
    }
}
