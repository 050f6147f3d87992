//! Limits the connections that are in their handshake: in total, and for one address to half of what the others leave.
//!
//! No connection is refused for that. One beyond the limit closes the oldest of its own address, which has had the most
//! time to log in.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use super::outbox::{EVICT, NOT_IN_HANDSHAKE, Outbox};

#[derive(Default)]
pub(super) struct Handshakes {
    /// In the order in which they began. Those that are over are removed when there seem to be too many.
    by_address: HashMap<Option<IpAddr>, VecDeque<Arc<Outbox>>>,
    all: usize,
}

fn is_in_handshake(outbox: &Arc<Outbox>) -> bool {
    outbox.signals() & (NOT_IN_HANDSHAKE | EVICT) == 0
}

/// A /64 network of IPv6 counts as one address: its addresses cost nothing.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
        address => address,
    }
}

impl Handshakes {
    /// `outbox` begins its handshake, from `address`. At most `most` may be in it at a time.
    pub(super) fn begin(&mut self, outbox: &Arc<Outbox>, address: Option<IpAddr>, most: usize) {
        let address = address.map(network);
        if self.all >= most {
            self.by_address.retain(|_, outboxes| {
                outboxes.retain(is_in_handshake);
                !outboxes.is_empty()
            });
            self.all = self.by_address.values().map(VecDeque::len).sum();
        }
        let own = self.by_address.entry(address).or_default();
        own.push_back(outbox.clone());
        self.all += 1;
        let share = |all: usize, own: usize| (most.saturating_sub(all - own) / 2).max(1);
        if own.len() > share(self.all, own.len()) {
            let before = own.len();
            own.retain(is_in_handshake);
            self.all -= before - own.len();
            while own.len() > share(self.all, own.len()) {
                if let Some(oldest) = own.pop_front() {
                    oldest.signal(EVICT);
                    self.all -= 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> Option<IpAddr> {
        Some([192, 0, 2, last].into())
    }

    fn evicted(outboxes: &[Arc<Outbox>]) -> Vec<usize> {
        let evicted = outboxes.iter().enumerate().filter(|(_, it)| it.signals() & EVICT != 0);
        evicted.map(|(at, _)| at).collect()
    }

    #[test]
    fn an_address_closes_only_its_own_oldest() {
        let mut handshakes = Handshakes::default();
        let mut begin = |from: u8| {
            let outbox = Arc::new(Outbox::default());
            handshakes.begin(&outbox, address(from), 8);
            outbox
        };
        let other = begin(2);
        let many: Vec<_> = (0..100).map(|_| begin(1)).collect();
        assert_eq!(evicted(&many), (0..97).collect::<Vec<_>>(), "three are half of what the other leaves");
        assert_eq!(evicted(&[other]), [0_usize; 0]);
        let third = begin(3);
        assert_eq!(evicted(&[third]), [0_usize; 0]);
    }

    #[test]
    fn connections_past_their_handshake_are_neither_counted_nor_closed() {
        let mut handshakes = Handshakes::default();
        let mut all = Vec::new();
        for _ in 0..100 {
            let outbox = Arc::new(Outbox::default());
            handshakes.begin(&outbox, address(1), 8);
            outbox.leave_handshake();
            all.push(outbox);
        }
        assert_eq!(evicted(&all), [0_usize; 0]);
        assert!(handshakes.all <= 8 && handshakes.by_address.len() == 1);
    }
}
