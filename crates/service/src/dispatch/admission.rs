//! Which log-ins at the broker still count, and which credentials of endpoints are in use, as far as the access table needs it.
//!
//! A log-in reads its credential from the store, and its client decides when it opens the connection. Meanwhile the holder
//! may be shut out, and may even have got another credential. So a log-in notes the [`Moment`] at which it began: one that
//! began before its holder was shut out opens nothing.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use wire::{EndpointId, IdentityId};

/// Longer than a log-in may take.
const LOG_IN: SignedDuration = SignedDuration::from_mins(2);

/// A place in the order in which holders were shut out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

/// The endpoints that exist, and who was shut out. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Admissions(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    now: Moment,
    endpoints: HashMap<EndpointId, Connected>,
    /// Clients that were shut out, since when, and the time. Their connections are gone: only log-ins are left to refuse.
    clients: HashMap<IdentityId, (Moment, Timestamp)>,
}

/// What is known of one endpoint's connections.
#[derive(Clone, Debug)]
struct Connected {
    /// The credentials that have logged in since the service started.
    used: BTreeSet<i64>,
    /// It is locked: it may not do anything until it is registered again.
    barred: bool,
    /// Log-ins that began before count no more.
    since: Moment,
}

impl Inner {
    /// From now on it is later.
    fn next(&mut self) -> Moment {
        self.now.0 += 1;
        self.now
    }

    fn endpoint(&mut self, endpoint: EndpointId) -> &mut Connected {
        let since = self.now;
        let new = || Connected { used: BTreeSet::new(), barred: false, since };
        self.endpoints.entry(endpoint).or_insert_with(new)
    }
}

impl Admissions {
    /// To be noted before a log-in reads its credential.
    pub(super) fn moment(&self) -> Moment {
        self.inner().now
    }

    /// The client's credentials have ended in the store.
    pub(super) fn client_shut_out(&self, client: IdentityId, now: Timestamp) {
        let mut inner = self.inner();
        inner.clients.retain(|_, (_, at)| now.duration_since(*at).abs() < LOG_IN);
        let moment = inner.next();
        inner.clients.insert(client, (moment, now));
    }

    /// Whether a log-in of the client that began at `began` counts.
    pub(super) fn admits_client(&self, client: IdentityId, began: Moment) -> bool {
        self.inner().clients.get(&client).is_none_or(|(since, _)| began >= *since)
    }

    /// A credential has opened a connection. Answers whether its endpoint exists: it may be deleted at this moment.
    pub(super) fn logged_in(&self, endpoint: EndpointId, number: i64) -> bool {
        let mut inner = self.inner();
        let Some(it) = inner.endpoints.get_mut(&endpoint) else { return false };
        it.used.insert(number);
        true
    }

    /// A new credential was handed out: the earlier ones that have been used, whose connections must end.
    pub(super) fn registered(&self, endpoint: EndpointId, number: i64) -> Vec<i64> {
        let mut inner = self.inner();
        let since = inner.next();
        let it = inner.endpoint(endpoint);
        (it.barred, it.since) = (false, since);
        let kept = it.used.split_off(&number);
        std::mem::replace(&mut it.used, kept).into_iter().collect()
    }

    /// The endpoint exists, again perhaps.
    pub(super) fn made(&self, endpoint: EndpointId) {
        self.inner().endpoint(endpoint).barred = false;
    }

    /// The endpoint is locked, or its owner is shut out.
    pub(super) fn barred(&self, endpoint: EndpointId) {
        let mut inner = self.inner();
        let since = inner.next();
        if let Some(it) = inner.endpoints.get_mut(&endpoint) {
            *it = Connected { used: BTreeSet::new(), barred: true, since };
        }
    }

    /// The endpoint is no more.
    pub(super) fn deleted(&self, endpoint: EndpointId) {
        let mut inner = self.inner();
        inner.next();
        inner.endpoints.remove(&endpoint);
    }

    /// Whether the endpoint exists and is not locked.
    pub(super) fn admits(&self, endpoint: EndpointId) -> bool {
        self.inner().endpoints.get(&endpoint).is_some_and(|it| !it.barred)
    }

    /// The same, and whether a log-in of the endpoint that began at `began` counts.
    pub(super) fn admits_endpoint(&self, endpoint: EndpointId, began: Moment) -> bool {
        self.inner().endpoints.get(&endpoint).is_some_and(|it| !it.barred && began >= it.since)
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
    fn a_log_in_that_began_before_its_endpoint_was_shut_out_counts_no_more() {
        type Happens = fn(&Admissions);
        let table: [(&str, Happens); 3] = [
            ("locked", |it| it.barred(ENDPOINT)),
            ("deleted", |it| it.deleted(ENDPOINT)),
            ("registered again", |it| assert_eq!(it.registered(ENDPOINT, 2), [1])),
        ];
        for (what, happens) in table {
            let admissions = Admissions::default();
            admissions.made(ENDPOINT);
            let began = admissions.moment();
            assert!(admissions.logged_in(ENDPOINT, 1) && admissions.admits_endpoint(ENDPOINT, began));
            happens(&admissions);
            admissions.registered(ENDPOINT, 3);
            assert!(!admissions.admits_endpoint(ENDPOINT, began), "{what}");
            assert!(admissions.admits_endpoint(ENDPOINT, admissions.moment()), "{what}");
        }
    }

    #[test]
    fn a_log_in_that_began_before_its_client_was_shut_out_counts_no_more() {
        let admissions = Admissions::default();
        let began = admissions.moment();
        assert!(admissions.admits_client(CLIENT, began));
        admissions.client_shut_out(CLIENT, NOW);
        // However soon the client gets another credential, with the same number.
        assert!(!admissions.admits_client(CLIENT, began));
        assert!(admissions.admits_client(CLIENT, admissions.moment()));
        let other = IdentityId::from_uuid(Uuid::from_u128(3));
        assert!(admissions.admits_client(other, began));
        admissions.client_shut_out(other, NOW + LOG_IN);
        assert_eq!(admissions.inner().clients.len(), 1, "what no log-in can be under way for is forgotten");
    }
}
