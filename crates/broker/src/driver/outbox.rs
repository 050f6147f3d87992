//! What is to be sent to one connection, and the signals to its task.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use futures_util::task::AtomicWaker;

use crate::core::Output;

/// Filled under the broker's lock, in the order of the core's decisions; emptied by the connection's task. It is bounded:
/// deliveries by the core, and replies because a client that does not read them is not read.
#[derive(Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    pub(crate) waker: AtomicWaker,
    signals: AtomicU8,
    close_text: OnceLock<Arc<str>>,
}

#[derive(Default)]
struct Waiting {
    outputs: Vec<Output>,
    weight: usize,
}

/// The broker stops.
pub(crate) const STOP: u8 = 1;
/// The embedder has ended the connection.
pub(crate) const ENDED_BY_EMBEDDER: u8 = 2;
/// There are too many handshakes, and this connection's is the oldest.
pub(crate) const EVICT: u8 = 4;
/// The handshake is over, or the connection is: it is never evicted.
pub(crate) const NOT_IN_HANDSHAKE: u8 = 8;

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

    /// Moves everything into `batch`, which must be empty.
    pub(crate) fn take(&self, batch: &mut Vec<Output>) {
        let mut waiting = self.waiting();
        std::mem::swap(&mut waiting.outputs, batch);
        waiting.weight = 0;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting().outputs.is_empty()
    }

    /// The [`Output::weight`] of everything in here.
    pub(crate) fn weight(&self) -> usize {
        self.waiting().weight
    }

    pub(crate) fn signal(&self, what: u8) {
        self.signals.fetch_or(what, Ordering::AcqRel);
        self.waker.wake();
    }

    /// The embedder ends the connection. The client reads `why` as the close text.
    pub(crate) fn end(&self, why: &Arc<str>) {
        // The first reason holds: the connection has ended with it.
        let _ = self.close_text.set(why.clone());
        self.signal(ENDED_BY_EMBEDDER);
    }

    /// The close text of a connection that the embedder ends.
    pub(crate) fn close_text(&self) -> &str {
        self.close_text.get().map_or("the connection was ended by the service", |why| why)
    }

    pub(crate) fn signals(&self) -> u8 {
        self.signals.load(Ordering::Acquire)
    }

    pub(crate) fn leave_handshake(&self) {
        self.signals.fetch_or(NOT_IN_HANDSHAKE, Ordering::AcqRel);
    }
}

/// Merges a confirm into the one before it, when `multiple` can say both.
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
