//! Which endpoints there are, and which of their credentials are in use, as far as the access table needs it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use wire::EndpointId;

use super::url::User;

/// What is known of one endpoint's connections.
#[derive(Clone, Debug, Default)]
struct Connected {
    /// The credentials that have logged in since the service started.
    used: BTreeSet<i64>,
    /// It is locked: it may not do anything until it is registered again.
    barred: bool,
}

/// Longer than a log-in may take.
const LOG_IN: SignedDuration = SignedDuration::from_mins(2);

/// The endpoints that exist, and nobody else. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    endpoints: Arc<Mutex<HashMap<EndpointId, Connected>>>,
    /// Clients' users who were shut out a moment ago. Their credentials are gone; a log-in that had read one is not done.
    shut_out: Arc<Mutex<HashMap<User, Timestamp>>>,
}

impl Standing {
    pub(super) fn shut_out(&self, user: User, now: Timestamp) {
        let mut users = self.shut_out.lock().unwrap_or_else(PoisonError::into_inner);
        users.retain(|_, since| now.duration_since(*since) < LOG_IN);
        users.insert(user, now);
    }

    /// A credential of this name was made anew.
    pub(super) fn let_in(&self, user: User) {
        self.shut_out.lock().unwrap_or_else(PoisonError::into_inner).remove(&user);
    }

    pub(super) fn is_shut_out(&self, user: User) -> bool {
        self.shut_out.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&user)
    }

    /// A credential has opened a connection. Answers whether its endpoint exists: it may be deleted at this moment.
    pub(super) fn logged_in(&self, endpoint: EndpointId, number: i64) -> bool {
        let mut endpoints = self.endpoints();
        let Some(it) = endpoints.get_mut(&endpoint) else { return false };
        it.used.insert(number);
        true
    }

    /// A new credential was handed out: the earlier ones that have been used, whose connections must end.
    pub(super) fn registered(&self, endpoint: EndpointId, number: i64) -> Vec<i64> {
        let mut endpoints = self.endpoints();
        let it = endpoints.entry(endpoint).or_default();
        it.barred = false;
        let kept = it.used.split_off(&number);
        std::mem::replace(&mut it.used, kept).into_iter().collect()
    }

    /// The endpoint exists, again perhaps.
    pub(super) fn made(&self, endpoint: EndpointId) {
        self.endpoints().entry(endpoint).or_default().barred = false;
    }

    /// The endpoint is locked: all the credentials that have been used.
    pub(super) fn barred(&self, endpoint: EndpointId) -> Vec<i64> {
        let mut endpoints = self.endpoints();
        let Some(it) = endpoints.get_mut(&endpoint) else { return Vec::new() };
        it.barred = true;
        std::mem::take(&mut it.used).into_iter().collect()
    }

    /// The endpoint is no more: all the credentials that have been used.
    pub(super) fn deleted(&self, endpoint: EndpointId) -> Vec<i64> {
        self.endpoints().remove(&endpoint).map_or_else(Vec::new, |it| it.used.into_iter().collect())
    }

    /// Whether it exists and is not locked.
    pub(super) fn admits(&self, endpoint: EndpointId) -> bool {
        self.endpoints().get(&endpoint).is_some_and(|it| !it.barred)
    }

    fn endpoints(&self) -> std::sync::MutexGuard<'_, HashMap<EndpointId, Connected>> {
        // A panic while it was held cannot have left it half changed.
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn remembers(&self, endpoint: EndpointId) -> bool {
        self.endpoints().contains_key(&endpoint)
    }
}
