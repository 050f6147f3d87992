//! Counts connections by address, and closes idle ones to make room.
//!
//! An address may have as many connections as [`identity::fair_shares`] allows. One more closes its own connection that has
//! been idle for longest. So a client that opens connections and leaves them locks out nobody, not even others at the same
//! address. A connection is idle while the service waits for its client: for a request, or for more of a
//! body. Connections that the service works for are never closed, nor those whose client still reads an answer; when all of an
//! address are such, one more is refused.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use identity::fair_shares;
use identity::http::arrival::network;

/// The count of one kind of connections. Clones share it.
#[derive(Clone, Debug)]
pub struct Connections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    table: Mutex<Table>,
    left: Notify,
}

#[derive(Debug)]
struct Table {
    size: usize,
    all: usize,
    /// Numbers idle ones in the order in which they became so.
    next: u64,
    holders: HashMap<IpAddr, Holder>,
}

#[derive(Debug, Default)]
struct Holder {
    idle: BTreeMap<u64, Arc<Notify>>,
    working: usize,
}

impl Holder {
    fn count(&self) -> usize {
        self.idle.len() + self.working
    }
}

/// One connection in the count. It is idle at first.
#[derive(Debug)]
pub struct ConnectionSlot {
    connections: Connections,
    address: IpAddr,
    state: Mutex<State>,
    evicted: Arc<Notify>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle(u64),
    Working,
}

impl Table {
    fn idle(&mut self, address: IpAddr, evicted: &Arc<Notify>) -> u64 {
        self.next += 1;
        self.holders.entry(address).or_default().idle.insert(self.next, evicted.clone());
        self.next
    }

    /// Evicts idle connections of `address` until it may have one more. False if it may not.
    fn make_room(&mut self, address: IpAddr) -> bool {
        loop {
            let own = self.holders.get(&address).map_or(0, Holder::count);
            if own < fair_shares::largest_share(self.size, self.all - own) {
                return true;
            }
            let oldest = self.holders.get_mut(&address).and_then(|holder| holder.idle.pop_first());
            let Some((_, evicted)) = oldest else { return false };
            self.all -= 1;
            evicted.notify_one();
        }
    }
}

impl Connections {
    /// At most `size` of them.
    pub fn new(size: usize) -> Connections {
        let table = Table { size, all: 0, next: 0, holders: HashMap::new() };
        Connections(Arc::new(Inner { table: Mutex::new(table), left: Notify::new() }))
    }

    /// Counts a new connection from `address`, unless it may not have one more.
    pub fn enter(&self, address: IpAddr) -> Option<ConnectionSlot> {
        let address = network(address);
        let mut table = self.table();
        if !table.make_room(address) {
            return None;
        }
        table.all += 1;
        let evicted = Arc::new(Notify::new());
        let state = Mutex::new(State::Idle(table.idle(address, &evicted)));
        Some(ConnectionSlot { connections: self.clone(), address, state, evicted })
    }

    /// Waits until there is none.
    pub async fn ended(&self) {
        loop {
            let left = self.0.left.notified();
            if self.table().all == 0 {
                return;
            }
            left.await;
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A panic while it was held cannot have left it half changed.
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionSlot {
    /// Waits until this connection has to make room for another of its address.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// The service works for this connection from now on. If it was evicted, it is counted again; false if its address may
    /// not have one more.
    pub fn begin(&self) -> bool {
        let mut table = self.connections.table();
        let mut state = self.state();
        let State::Idle(number) = *state else { return true };
        let holder = table.holders.get_mut(&self.address);
        if holder.is_none_or(|holder| holder.idle.remove(&number).is_none()) {
            if !table.make_room(self.address) {
                return false;
            }
            table.all += 1;
        }
        table.holders.entry(self.address).or_default().working += 1;
        *state = State::Working;
        true
    }

    /// The connection is idle again.
    pub fn end(&self) {
        let mut table = self.connections.table();
        let mut state = self.state();
        if *state == State::Working {
            if let Some(holder) = table.holders.get_mut(&self.address) {
                holder.working -= 1;
            }
            *state = State::Idle(table.idle(self.address, &self.evicted));
        }
    }

    /// Whether it had to make room for another one.
    pub fn is_evicted(&self) -> bool {
        let table = self.connections.table();
        match *self.state() {
            State::Working => false,
            State::Idle(number) => {
                table.holders.get(&self.address).is_none_or(|holder| !holder.idle.contains_key(&number))
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut table = self.connections.table();
        let state = *self.state();
        if let Some(holder) = table.holders.get_mut(&self.address) {
            let held = match state {
                State::Working => {
                    holder.working -= 1;
                    true
                }
                State::Idle(number) => holder.idle.remove(&number).is_some(),
            };
            if holder.count() == 0 {
                table.holders.remove(&self.address);
            }
            table.all -= usize::from(held);
        }
        drop(table);
        self.connections.0.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn is_evicted(slot: &ConnectionSlot) -> bool {
        slot.evicted().now_or_never().is_some()
    }

    #[test]
    fn the_longest_idle_of_the_same_address_makes_room() {
        let connections = Connections::new(6);
        let mut own: Vec<_> = (0..3).map(|_| connections.enter(A).unwrap()).collect();
        let other = connections.enter(B).unwrap();
        own[0].begin();
        // One too many since the other came; the first is worked for.
        own.push(connections.enter(A).unwrap());
        assert_eq!(own.iter().map(is_evicted).collect::<Vec<_>>(), [false, true, true, false]);
        own[0].end();
        own.push(connections.enter(A).unwrap());
        assert!(is_evicted(&own[3]) && !is_evicted(&own[0]), "it has been idle for less time");
        own[0].begin();
        own[4].begin();
        assert!(connections.enter(A).is_none(), "all are worked for");
        assert!(connections.enter(B).is_some() && !is_evicted(&other));
        drop((own, other));
        let table = connections.table();
        assert_eq!((table.all, table.holders.len()), (0, 0), "nothing is kept of who left");
    }

    #[test]
    fn one_that_was_evicted_counts_again_only_when_it_is_worked_for_and_there_is_room() {
        let connections = Connections::new(2);
        let first = connections.enter(A).unwrap();
        let second = connections.enter(A).unwrap();
        assert!(is_evicted(&first) && first.is_evicted() && !second.is_evicted());
        second.begin();
        assert!(!first.begin(), "the second is worked for");
        second.end();
        assert!(first.begin(), "it counts again, and the second makes room");
        assert!(is_evicted(&second) && second.is_evicted() && !first.is_evicted());
        drop(second);
        assert_eq!(connections.table().all, 1);
        drop(first);
        assert!(connections.ended().now_or_never().is_some());
    }
}
