//! Decides which log-ins at the broker are still valid, and tracks which credentials endpoints use.
//!
//! A log-in reads its credential from the store, and its client decides when it opens the connection. Meanwhile the holder
//! may be disabled, and may even have got another credential. So a log-in notes the [`LogInOrder`] at which it began, and is
//! refused if its holder was disabled after that.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use wire::{EndpointId, IdentityId};

/// Longer than any log-in takes.
const LOG_IN: SignedDuration = SignedDuration::from_mins(2);

/// A counter that grows each time a holder is disabled: orders log-ins and disablings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LogInOrder(u64);

/// The endpoints that exist, and the clients that were disabled. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Admissions(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    now: LogInOrder,
    endpoints: HashMap<EndpointId, Connected>,
    /// Disabled clients, with moment and time. Their connections are closed: only log-ins under way must be refused.
    clients: HashMap<IdentityId, (LogInOrder, Timestamp)>,
}

/// The connections of one endpoint.
#[derive(Clone, Debug)]
struct Connected {
    /// The credentials that have logged in since the service started.
    used: BTreeSet<i64>,
    /// It is locked: it may not do anything until it is registered again.
    blocked: bool,
    /// Log-ins that began before this are refused.
    since: LogInOrder,
}

impl Inner {
    /// Moves on to the next moment.
    fn next(&mut self) -> LogInOrder {
        self.now.0 += 1;
        self.now
    }

    fn endpoint(&mut self, endpoint: EndpointId) -> &mut Connected {
        let since = self.now;
        let new = || Connected { used: BTreeSet::new(), blocked: false, since };
        self.endpoints.entry(endpoint).or_insert_with(new)
    }
}

impl Admissions {
    /// The current moment. A log-in takes it before it reads its credential.
    pub(super) fn moment(&self) -> LogInOrder {
        self.inner().now
    }

    /// Records that the client's credentials were removed from the store.
    pub(super) fn block_client(&self, client: IdentityId, now: Timestamp) {
        let mut inner = self.inner();
        inner.clients.retain(|_, (_, at)| now.duration_since(*at).abs() < LOG_IN);
        let moment = inner.next();
        inner.clients.insert(client, (moment, now));
    }

    /// Whether a log-in of the client that began at `began` is valid.
    pub(super) fn admits_client(&self, client: IdentityId, began: LogInOrder) -> bool {
        self.inner().clients.get(&client).is_none_or(|(since, _)| began >= *since)
    }

    /// Records that a credential opened a connection. Returns whether its endpoint exists: it may have just been deleted.
    pub(super) fn record_log_in(&self, endpoint: EndpointId, number: i64) -> bool {
        let mut inner = self.inner();
        let Some(it) = inner.endpoints.get_mut(&endpoint) else { return false };
        it.used.insert(number);
        true
    }

    /// Records a new credential. Returns the earlier ones that were used, whose connections must be closed.
    pub(super) fn registered(&self, endpoint: EndpointId, number: i64) -> Vec<i64> {
        let mut inner = self.inner();
        let since = inner.next();
        let it = inner.endpoint(endpoint);
        (it.blocked, it.since) = (false, since);
        let kept = it.used.split_off(&number);
        std::mem::replace(&mut it.used, kept).into_iter().collect()
    }

    /// Records that the endpoint exists, perhaps again.
    pub(super) fn made(&self, endpoint: EndpointId) {
        self.inner().endpoint(endpoint).blocked = false;
    }

    /// Records that the endpoint is locked, or its owner disabled.
    pub(super) fn block_endpoint(&self, endpoint: EndpointId) {
        let mut inner = self.inner();
        let since = inner.next();
        if let Some(it) = inner.endpoints.get_mut(&endpoint) {
            *it = Connected { used: BTreeSet::new(), blocked: true, since };
        }
    }

    /// Records that the endpoint was deleted.
    pub(super) fn deleted(&self, endpoint: EndpointId) {
        let mut inner = self.inner();
        inner.next();
        inner.endpoints.remove(&endpoint);
    }

    /// Whether the endpoint exists and is not locked.
    pub(super) fn admits(&self, endpoint: EndpointId) -> bool {
        self.inner().endpoints.get(&endpoint).is_some_and(|it| !it.blocked)
    }

    /// The same, and whether a log-in of the endpoint that began at `began` is valid.
    pub(super) fn admits_endpoint(&self, endpoint: EndpointId, began: LogInOrder) -> bool {
        self.inner().endpoints.get(&endpoint).is_some_and(|it| !it.blocked && began >= it.since)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic while it was held cannot have left it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn remembers(&self, endpoint: EndpointId) -> bool {
        self.inner().endpoints.contains_key(&endpoint)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const ENDPOINT: EndpointId = EndpointId::from_uuid(Uuid::from_u128(1));
    const CLIENT: IdentityId = IdentityId::from_uuid(Uuid::from_u128(2));
    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    /// A log-in is under way while something happens that ends the credential that it has read; then its endpoint comes back.
    #[test]
    fn a_log_in_that_began_before_its_endpoint_was_locked_deleted_or_registered_again_is_refused() {
        type Happens = fn(&Admissions);
        let table: [(&str, Happens); 3] = [
            ("locked", |it| it.block_endpoint(ENDPOINT)),
            ("deleted", |it| it.deleted(ENDPOINT)),
            ("registered again", |it| assert_eq!(it.registered(ENDPOINT, 2), [1])),
        ];
        for (what, happens) in table {
            let admissions = Admissions::default();
            admissions.made(ENDPOINT);
            let began = admissions.moment();
            assert!(admissions.record_log_in(ENDPOINT, 1) && admissions.admits_endpoint(ENDPOINT, began));
            happens(&admissions);
            admissions.registered(ENDPOINT, 3);
            assert!(!admissions.admits_endpoint(ENDPOINT, began), "{what}");
            assert!(admissions.admits_endpoint(ENDPOINT, admissions.moment()), "{what}");
        }
    }

    #[test]
    fn a_log_in_that_began_before_its_client_was_blocked_is_refused() {
        let admissions = Admissions::default();
        let began = admissions.moment();
        assert!(admissions.admits_client(CLIENT, began));
        admissions.block_client(CLIENT, NOW);
        // However soon the client gets another credential, with the same number.
        assert!(!admissions.admits_client(CLIENT, began));
        assert!(admissions.admits_client(CLIENT, admissions.moment()));
        let other = IdentityId::from_uuid(Uuid::from_u128(3));
        assert!(admissions.admits_client(other, began));
        admissions.block_client(other, NOW + LOG_IN);
        assert_eq!(admissions.inner().clients.len(), 1, "what no log-in can be under way for is forgotten");
    }
}
