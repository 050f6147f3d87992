//! What one connection is to be sent, and how its task is told.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::task::AtomicWaker;

use crate::core::Output;

/// Filled under the broker's lock, in the order of its decisions; emptied by the connection's task. What may lie here is
/// bounded by the core (deliveries) and by not reading from a client that does not read (replies).
#[derive(Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    pub(crate) waker: AtomicWaker,
    signals: AtomicU8,
}

#[derive(Default)]
struct Waiting {
    outputs: Vec<Output>,
    weight: usize,
}

/// The server stops.
pub(crate) const STOP: u8 = 1;
/// The owner cut the connection.
pub(crate) const CUT: u8 = 2;
/// Too many handshakes: this one is the oldest.
pub(crate) const EVICT: u8 = 4;
/// Past its handshake, or gone: never evicted.
pub(crate) const SETTLED: u8 = 8;

impl Outbox {
    /// Appends; `true` when the task must be woken for it.
    pub(crate) fn push(&self, output: Output) -> bool {
        let mut waiting = self.waiting();
        if let Some(last) = waiting.outputs.last_mut()
            && merge(last, &output)
        {
            return false;
        }
        waiting.weight += output.weight();
        waiting.outputs.push(output);
        waiting.outputs.len() == 1
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all there is into `batch`, which must be empty.
    pub(crate) fn take(&self, batch: &mut Vec<Output>) {
        let mut waiting = self.waiting();
        std::mem::swap(&mut waiting.outputs, batch);
        waiting.weight = 0;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting().outputs.is_empty()
    }

    /// The [`Output::weight`] of all that lies here.
    pub(crate) fn weight(&self) -> usize {
        self.waiting().weight
    }

    pub(crate) fn signal(&self, what: u8) {
        self.signals.fetch_or(what, Ordering::AcqRel);
        self.waker.wake();
    }

    pub(crate) fn signals(&self) -> u8 {
        self.signals.load(Ordering::Acquire)
    }

    pub(crate) fn settled(&self) {
        self.signals.fetch_or(SETTLED, Ordering::AcqRel);
    }
}

/// Confirms of neighbours become one, when one can say it.
fn merge(last: &mut Output, next: &Output) -> bool {
    match (last, next) {
        (
            Output::Confirm { channel, last, safe: true, whole: true, .. },
            Output::Confirm { channel: other, first, last: to, safe: true, whole: true },
        ) if channel == other && *last + 1 == *first => {
            *last = *to;
            true
        }
        _ => false,
    }
}
