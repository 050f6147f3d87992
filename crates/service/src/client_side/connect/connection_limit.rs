//! Limits how many connections the forwarder serves at a time, so that programs without a credential cannot lock out its user.
//!
//! A new connection takes the place of the oldest one that is not authenticated yet. If all are authenticated, the new one
//! waits until one of them ends.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

#[derive(Debug)]
pub(super) struct ConnectionLimit {
    most: usize,
    table: Mutex<Table>,
    /// A connection ended, or can be evicted after all.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    count: usize,
    next: u64,
    /// By their numbers, which are in the order of arrival.
    unauthenticated: BTreeMap<u64, Arc<Notify>>,
}

/// One connection that the limit counts. It is not authenticated at first.
#[derive(Debug)]
pub(super) struct CountedConnection {
    limit: Arc<ConnectionLimit>,
    number: u64,
    authenticated: AtomicBool,
    evicted: Arc<Notify>,
}

impl ConnectionLimit {
    pub(super) fn new(most: usize) -> Arc<ConnectionLimit> {
        Arc::new(ConnectionLimit { most, table: Mutex::default(), changed: Notify::new() })
    }

    /// Counts a new connection once there is room for it. Only one task may wait here.
    pub(super) async fn enter(self: &Arc<Self>) -> CountedConnection {
        loop {
            if let Some(entered) = self.try_enter() {
                return entered;
            }
            self.changed.notified().await;
        }
    }

    fn try_enter(self: &Arc<Self>) -> Option<CountedConnection> {
        let mut table = self.table();
        if table.count >= self.most {
            let (_, oldest) = table.unauthenticated.pop_first()?;
            oldest.notify_one();
            table.count -= 1;
        }
        table.count += 1;
        table.next += 1;
        let (number, evicted) = (table.next, Arc::new(Notify::new()));
        table.unauthenticated.insert(number, evicted.clone());
        Some(CountedConnection {
            limit: self.clone(),
            number,
            authenticated: AtomicBool::new(false),
            evicted,
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A panic while it was held cannot have left it half changed.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CountedConnection {
    /// The client has shown a credential: the connection is never evicted from now on. If it was evicted at this very moment,
    /// it stays all the same, one above the limit.
    pub(super) fn authenticate(&self) {
        let mut table = self.limit.table();
        if !self.authenticated.swap(true, Ordering::AcqRel)
            && table.unauthenticated.remove(&self.number).is_none()
        {
            table.count += 1;
        }
    }

    pub(super) fn is_authenticated(&self) -> bool {
        self.authenticated.load(Ordering::Acquire)
    }

    /// Waits until the connection must be closed to make room for another.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
        if self.is_authenticated() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        let mut table = self.limit.table();
        let counted = table.unauthenticated.remove(&self.number).is_some() || self.is_authenticated();
        table.count -= usize::from(counted);
        drop(table);
        self.limit.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn is_evicted(connection: &CountedConnection) -> bool {
        connection.evicted().now_or_never().is_some()
    }

    #[test]
    fn the_oldest_that_is_not_authenticated_gives_way() {
        let limit = ConnectionLimit::new(3);
        let enter = || limit.enter().now_or_never();
        let connections: Vec<_> = (0..3).filter_map(|_| enter()).collect();
        connections[0].authenticate();
        let fourth = enter().unwrap();
        assert_eq!(connections.iter().map(is_evicted).collect::<Vec<_>>(), [false, true, false]);
        connections[2].authenticate();
        fourth.authenticate();
        assert!(enter().is_none(), "all are authenticated");
        drop(connections);
        assert!(enter().is_some());
        drop(fourth);
        let table = limit.table();
        assert_eq!((table.count, table.unauthenticated.len()), (0, 0), "each is counted once");
    }

    #[test]
    fn one_that_authenticates_as_it_is_evicted_stays_and_counts() {
        let limit = ConnectionLimit::new(1);
        let first = limit.enter().now_or_never().unwrap();
        let second = limit.enter().now_or_never().unwrap();
        first.authenticate();
        assert!(!is_evicted(&first));
        assert_eq!(limit.table().count, 2);
        drop(second);
        assert!(limit.enter().now_or_never().is_none());
        drop(first);
        assert_eq!(limit.table().count, 0);
    }

    #[tokio::test]
    async fn a_new_connection_waits_while_all_are_authenticated() {
        let limit = ConnectionLimit::new(1);
        let first = limit.enter().await;
        first.authenticate();
        let waiting = tokio::spawn({
            let limit = limit.clone();
            async move { limit.enter().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.unwrap();
    }
}
