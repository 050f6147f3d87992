//! A request in progress: from its head until its answer has been handed to its connection.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use wire::IdentityId;

use super::connections::Place;
use crate::fair_shares::Share;

/// The requests of a connection, as its stream has to know them.
#[derive(Debug, Default)]
pub struct Progress {
    pub(super) begun: AtomicU64,
    pub(super) working: AtomicBool,
}

impl Progress {
    /// A request's head is complete.
    pub fn begin(&self) {
        self.begun.fetch_add(1, Ordering::AcqRel);
        self.working.store(true, Ordering::Release);
    }

    /// Its answer has been made.
    pub fn end(&self) {
        self.working.store(false, Ordering::Release);
    }
}

/// A request that is worked for, until its answer has been handed to its connection. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Working(Arc<Work>);

#[derive(Debug)]
struct Work {
    place: Arc<Place>,
    progress: Arc<Progress>,
    /// Of the requests that are worked for, what it takes of its caller's.
    share: OnceLock<Share<IdentityId>>,
}

impl Working {
    /// Nothing if the connection had to make room for another one, and there is none for it now.
    pub(super) fn begin(place: Arc<Place>, progress: Arc<Progress>) -> Option<Working> {
        if !place.begin() {
            return None;
        }
        progress.begin();
        Some(Working(Arc::new(Work { place, progress, share: OnceLock::new() })))
    }

    /// The service waits for the client, and does nothing for it meanwhile.
    pub(super) fn pause(&self) {
        self.0.place.end();
    }

    /// The service works for the client again. False if its connection had to make room for another one meanwhile, and there
    /// is none for it now.
    pub(super) fn resume(&self) -> bool {
        self.0.place.begin()
    }

    /// Whether its connection had to make room for another one while it was paused.
    pub(super) fn is_evicted(&self) -> bool {
        self.0.place.is_evicted()
    }

    /// Whose request it is, with what it takes of their share.
    pub(crate) fn counts_for(&self, share: Share<IdentityId>) {
        // A request has one caller; whoever asks for it twice has a share already.
        let _ = self.0.share.set(share);
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.progress.end();
        self.place.end();
    }
}
