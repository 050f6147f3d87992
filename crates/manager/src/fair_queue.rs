//! A queue that serves its owners in turn: one owner with many entries delays nobody else's first.

use std::collections::{BTreeMap, VecDeque};

/// Entries in the order in which they are served. Pure.
#[derive(Debug)]
pub(crate) struct FairQueue<K, T> {
    /// The owners with entries, the next one first.
    turns: VecDeque<K>,
    entries: BTreeMap<K, VecDeque<T>>,
    length: usize,
}

impl<K, T> Default for FairQueue<K, T> {
    fn default() -> Self {
        Self { turns: VecDeque::new(), entries: BTreeMap::new(), length: 0 }
    }
}

impl<K: Ord + Clone, T> FairQueue<K, T> {
    pub(crate) fn push(&mut self, owner: K, entry: T) {
        let own = self.entries.entry(owner.clone()).or_default();
        if own.is_empty() {
            self.turns.push_back(owner);
        }
        own.push_back(entry);
        self.length += 1;
    }

    /// Takes the first entry of the owner whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<T> {
        self.pop_if(|_| true)
    }

    /// Takes the first entry of the first owner in turn who may be served. The turns of the others stay as they are.
    pub(crate) fn pop_if(&mut self, may: impl Fn(&K) -> bool) -> Option<T> {
        let at = self.turns.iter().position(may)?;
        let owner = self.turns.remove(at)?;
        let own = self.entries.get_mut(&owner)?;
        let entry = own.pop_front()?;
        if own.is_empty() {
            self.entries.remove(&owner);
        } else {
            self.turns.push_back(owner);
        }
        self.length -= 1;
        Some(entry)
    }

    pub(crate) fn find_mut(&mut self, owner: &K, matches: impl Fn(&T) -> bool) -> Option<&mut T> {
        self.entries.get_mut(owner)?.iter_mut().find(|entry| matches(entry))
    }

    pub(crate) fn owned_by(&self, owner: &K) -> usize {
        self.entries.get(owner).map_or(0, VecDeque::len)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.values().flatten()
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drain(queue: &mut FairQueue<u8, u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn owners_are_served_in_turn() {
        let mut queue = FairQueue::default();
        for entry in [10, 11, 12] {
            queue.push(1, entry);
        }
        queue.push(2, 20);
        queue.push(3, 30);
        assert_eq!(queue.owned_by(&1), 3);
        *queue.find_mut(&3, |entry| *entry == 30).unwrap() = 31;
        assert_eq!(drain(&mut queue), [10, 20, 31, 11, 12]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn an_owner_who_may_not_be_served_keeps_the_turn() {
        let mut queue = FairQueue::default();
        for (owner, entry) in [(1, 10), (1, 11), (2, 20), (2, 21)] {
            queue.push(owner, entry);
        }
        assert_eq!(queue.pop_if(|owner| *owner != 1), Some(20));
        assert_eq!(queue.pop_if(|owner| *owner > 2), None);
        assert_eq!(drain(&mut queue), [10, 21, 11]);
    }

    proptest! {
        /// An owner's entries keep their order, none is lost, and an owner's n-th entry waits for at most n entries of
        /// each other owner.
        #[test]
        fn nobody_waits_for_more_than_their_turn(entries in prop::collection::vec((0_u8..5, any::<u32>()), 0..60)) {
            let mut queue = FairQueue::default();
            for (number, (owner, entry)) in entries.iter().enumerate() {
                queue.push(*owner, (*owner, number, *entry));
            }
            prop_assert_eq!(queue.len(), entries.len());
            let served: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
            prop_assert_eq!(served.len(), entries.len());
            for (at, (owner, number, _)) in served.iter().enumerate() {
                let nth = served[..at].iter().filter(|(other, ..)| other == owner).count();
                prop_assert!(served[..at].iter().all(|(other, earlier, _)| other != owner || earlier < number));
                for other in 0..5 {
                    let before = served[..at].iter().filter(|(it, ..)| *it == other).count();
                    prop_assert!(other == *owner || before <= nth + 1);
                }
            }
        }
    }
}
