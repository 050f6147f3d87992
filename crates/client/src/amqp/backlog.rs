//! Limits the messages that wait in memory: beyond the limit nothing more is read from the socket, so that TCP slows the
//! broker down. The library alone would queue everything.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::frame_check::BODY_LIMIT;

/// Leaves room for one message of the largest size beside those that wait.
const LIMIT_BYTES: usize = BODY_LIMIT as usize + (32 << 20);

/// The bytes of messages that wait, for all connections of a session; and whether the session is over.
#[derive(Clone, Debug, Default)]
pub(super) struct Backlog(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    bytes: AtomicUsize,
    over: AtomicBool,
    /// The connections that wait until they may read.
    readers: Mutex<Vec<Waker>>,
}

impl Backlog {
    /// Counts bytes of bodies that came.
    pub(super) fn add(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Counts a message as taken by the session.
    pub(super) fn remove(&self, bytes: usize) {
        let less = |waiting: usize| Some(waiting.saturating_sub(bytes));
        let _ = self.0.bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        self.wake();
    }

    /// Ends the connections. Without it, the library goes on with a connection whose opening has been given up.
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

    /// Whether reading must pause; the reader is woken when that may have changed.
    pub(super) fn is_full(&self, reader: &Waker) -> bool {
        let mut readers = self.readers();
        if !readers.iter().any(|known| known.will_wake(reader)) {
            readers.push(reader.clone());
        }
        self.0.bytes.load(Ordering::Acquire) > LIMIT_BYTES
    }
}
