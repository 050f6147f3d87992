//! Divides a limited resource among its holders: each may hold at most half of what the others leave.
//!
//! One holder alone gets half. Two that want everything get a third each, and a third stays free. However many take as much
//! as they can, the next one still gets some. So nobody locks out others, and no number of holders has to be configured.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How much one holder may have of `size`, of which others hold `others`.
pub fn largest_share(size: usize, others: usize) -> usize {
    match size.saturating_sub(others) {
        0 => 0,
        left => (left / 2).max(1),
    }
}

/// A limited resource, and how much each holder has of it. Clones share it.
#[derive(Debug)]
pub struct Shares<K>(Arc<Mutex<Holdings<K>>>);

#[derive(Debug)]
struct Holdings<K> {
    size: usize,
    all: usize,
    each: HashMap<K, usize>,
}

/// What one holder has taken. It is given back when this is dropped.
#[derive(Debug)]
pub struct Share<K: Eq + Hash> {
    shares: Shares<K>,
    holder: K,
    amount: usize,
}

impl<K> Clone for Shares<K> {
    fn clone(&self) -> Self {
        Shares(self.0.clone())
    }
}

impl<K: Eq + Hash + Copy> Shares<K> {
    pub fn new(size: usize) -> Shares<K> {
        Shares(Arc::new(Mutex::new(Holdings { size, all: 0, each: HashMap::new() })))
    }

    /// Takes `amount` for `holder`, unless that is more than its share.
    pub fn take(&self, holder: K, amount: usize) -> Option<Share<K>> {
        self.try_take(holder, amount).then(|| Share { shares: self.clone(), holder, amount })
    }

    fn try_take(&self, holder: K, amount: usize) -> bool {
        let mut held = self.held();
        let own = held.each.get(&holder).copied().unwrap_or(0);
        let fits = own + amount <= largest_share(held.size, held.all - own);
        if fits && amount > 0 {
            held.all += amount;
            held.each.insert(holder, own + amount);
        }
        fits
    }
}

impl<K> Shares<K> {
    fn held(&self) -> MutexGuard<'_, Holdings<K>> {
        // A panic while it was held cannot have left it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Copy> Share<K> {
    /// Takes `amount` more. False if that is more than the holder's share.
    pub fn grow(&mut self, amount: usize) -> bool {
        let grown = self.shares.try_take(self.holder, amount);
        if grown {
            self.amount += amount;
        }
        grown
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut held = self.shares.held();
        held.all -= self.amount;
        if let Some(own) = held.each.get_mut(&self.holder) {
            *own -= self.amount;
            if *own == 0 {
                held.each.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::arrival::network;

    #[test]
    fn nobody_holds_more_than_half_of_what_others_leave() {
        let shares = Shares::new(100);
        let fill = |holder: u8| {
            let mut share = shares.take(holder, 0).unwrap();
            while share.grow(1) {}
            share
        };
        let first = fill(1);
        assert_eq!(first.amount, 50);
        assert!(shares.take(1, 1).is_none(), "all of one holder's together");
        let others: Vec<_> = (2..=6).map(fill).collect();
        assert_eq!(others.iter().map(|it| it.amount).collect::<Vec<_>>(), [25, 12, 6, 3, 2]);
        let more: Vec<_> = (7..=30).map(|holder| fill(holder).amount).collect();
        assert_eq!(more, [1; 24], "each gave back what it had; there is some for the next");
        drop(first);
        assert_eq!(fill(1).amount, 26);
        drop(others);
        let held = shares.held();
        assert_eq!((held.all, held.each.len()), (0, 0), "nothing is kept of who left");
        drop(held);
        assert!(shares.take(1, 51).is_none());
        assert_eq!(shares.take(1, 50).unwrap().amount, 50);
    }

    #[test]
    fn a_network_is_one_holder() {
        let at = |text: &str| network(text.parse().unwrap());
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1:2:3"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
        assert_ne!(at("127.0.0.1"), at("127.0.0.2"));
    }
}
