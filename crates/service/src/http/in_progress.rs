//! A request in progress: what it counts for, from its head until its answer has been written to the socket.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use wire::IdentityId;

use super::connections::ConnectionSlot;
use identity::fair_shares::Share;

/// What the stream of a connection has to know about its requests.
#[derive(Debug, Default)]
pub struct Progress {
    begun: AtomicU64,
    working: AtomicBool,
}

impl Progress {
    /// A request's head is complete.
    pub fn begin(&self) {
        self.begun.fetch_add(1, Ordering::AcqRel);
        self.working.store(true, Ordering::Release);
    }

    /// How many requests have begun.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    /// Whether one is in progress.
    pub fn is_working(&self) -> bool {
        self.working.load(Ordering::Acquire)
    }

    /// Its answer has been made.
    pub fn end(&self) {
        self.working.store(false, Ordering::Release);
    }
}

/// A request in progress. Clones share it; it ends with the last of them.
#[derive(Clone, Debug)]
pub(crate) struct RequestInProgress(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    slot: Arc<ConnectionSlot>,
    progress: Arc<Progress>,
    /// One of the requests that its caller may have in progress.
    share: OnceLock<Share<IdentityId>>,
}

impl RequestInProgress {
    /// Nothing if the connection had to make room for another one, and there is none for it now.
    pub(super) fn begin(slot: Arc<ConnectionSlot>, progress: Arc<Progress>) -> Option<RequestInProgress> {
        if !slot.begin() {
            return None;
        }
        progress.begin();
        Some(RequestInProgress(Arc::new(Inner { slot, progress, share: OnceLock::new() })))
    }

    /// The service waits for the client, and does nothing for it meanwhile.
    pub(super) fn pause(&self) {
        self.0.slot.end();
    }

    /// The service works for the client again. False if its connection had to make room for another one meanwhile, and there
    /// is none for it now.
    pub(super) fn resume(&self) -> bool {
        self.0.slot.begin()
    }

    /// Whether its connection had to make room for another one while it was paused.
    pub(super) fn is_evicted(&self) -> bool {
        self.0.slot.is_evicted()
    }

    /// Holds what the request takes of its caller's share until it ends.
    pub(crate) fn hold_share(&self, share: Share<IdentityId>) {
        // A request has one caller: the second time, its share is held already.
        let _ = self.0.share.set(share);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.progress.end();
        self.slot.end();
    }
}

/// Keeps a request in progress while the last bytes of its answer are buffered for a client that reads slowly. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct BufferedAnswer(Arc<Mutex<Option<RequestInProgress>>>);

impl BufferedAnswer {
    /// All of the answer is in the connection's buffer.
    pub(super) fn hold(&self, request: RequestInProgress) {
        request.0.progress.end();
        self.replace(Some(request));
    }

    /// The connection's buffer has been written, or the next request begins.
    pub(super) fn end(&self) {
        self.replace(None);
    }

    fn replace(&self, request: Option<RequestInProgress>) {
        let ended = std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), request);
        drop(ended);
    }
}
