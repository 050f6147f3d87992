//! How much of what a broker has sent waits until we take it: beyond a limit, nothing more is read, and TCP tells the
//! broker. The library would queue it all.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::guard::LARGEST_BODY;

/// One message of the largest size may always come whole, beside what waits.
const MOST: usize = LARGEST_BODY as usize + (32 << 20);

/// Bodies of one connection or several that share it, and whether anybody still wants them.
#[derive(Clone, Debug, Default)]
pub(super) struct Backlog(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    bytes: AtomicUsize,
    over: AtomicBool,
    /// Who reads; a session may have several connections.
    readers: Mutex<Vec<Waker>>,
}

impl Backlog {
    /// Bytes of bodies came.
    pub(super) fn came(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// A message was taken.
    pub(super) fn taken(&self, bytes: usize) {
        let less = |waiting: usize| Some(waiting.saturating_sub(bytes));
        let _ = self.0.bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        self.wake();
    }

    /// Ends the connection: the library goes on with one whose opening nobody waits for.
    pub(super) fn end(&self) {
        self.0.over.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.over.load(Ordering::Acquire)
    }

    fn wake(&self) {
        let readers = std::mem::take(&mut *self.readers());
        readers.into_iter().for_each(Waker::wake);
    }

    fn readers(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.0.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing more is to be read; the reader is woken when that may have changed.
    pub(super) fn is_long(&self, reader: &Waker) -> bool {
        let mut readers = self.readers();
        if !readers.iter().any(|known| known.will_wake(reader)) {
            readers.push(reader.clone());
        }
        self.0.bytes.load(Ordering::Acquire) > MOST
    }
}
