//! The unacknowledged deliveries of one channel, by tag.

use std::collections::VecDeque;

/// Rising tags, each with what was delivered. Taking one from anywhere is cheap, and its memory is soon freed.
pub(crate) struct Unacked<T> {
    items: VecDeque<(u64, Option<T>)>,
    live: usize,
}

impl<T> Default for Unacked<T> {
    fn default() -> Unacked<T> {
        Unacked { items: VecDeque::new(), live: 0 }
    }
}

impl<T> Unacked<T> {
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// `tag` must be above all before.
    pub(crate) fn push(&mut self, tag: u64, value: T) {
        self.items.push_back((tag, Some(value)));
        self.live += 1;
    }

    pub(crate) fn contains(&self, tag: u64) -> bool {
        self.find(tag).is_some_and(|it| self.items[it].1.is_some())
    }

    fn find(&self, tag: u64) -> Option<usize> {
        let (first, _) = self.items.front()?;
        // Without gaps, its index is the distance to the first.
        let guess = usize::try_from(tag.checked_sub(*first)?).ok()?;
        if self.items.get(guess).is_some_and(|it| it.0 == tag) {
            return Some(guess);
        }
        self.items.binary_search_by_key(&tag, |it| it.0).ok()
    }

    pub(crate) fn take(&mut self, tag: u64) -> Option<T> {
        let index = self.find(tag)?;
        let value = self.items[index].1.take()?;
        self.live -= 1;
        self.tidy();
        Some(value)
    }

    /// The oldest one, if its tag is at most `tag`.
    pub(crate) fn take_up_to(&mut self, tag: u64) -> Option<T> {
        while self.items.front().is_some_and(|it| it.0 <= tag) {
            if let Some((_, Some(value))) = self.items.pop_front() {
                self.live -= 1;
                self.tidy();
                return Some(value);
            }
        }
        None
    }

    /// Takes all that `which` chooses, oldest first.
    pub(crate) fn take_if(&mut self, mut which: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        for (_, slot) in &mut self.items {
            if let Some(value) = slot.take_if(|it| which(it)) {
                taken.push(value);
            }
        }
        self.live -= taken.len();
        self.tidy();
        taken
    }

    fn tidy(&mut self) {
        while self.items.front().is_some_and(|it| it.1.is_none()) {
            self.items.pop_front();
        }
        if self.items.len() > 2 * self.live + 64 {
            self.items.retain(|it| it.1.is_some());
        }
        if self.items.capacity() > 256 && self.items.len() * 8 < self.items.capacity() {
            self.items.shrink_to(2 * self.items.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Fails when taking by tag, up to a tag or by choice differs from the same on a map, or when more than twice
        /// the live entries (and a little) are held.
        #[test]
        fn behaves_like_a_map_by_tag(steps in prop::collection::vec((0u8..6, 0u64..300), 0..400)) {
            let mut unacked = Unacked::default();
            let mut model = BTreeMap::new();
            let mut next = 1;
            for (step, tag) in steps {
                match step {
                    0..3 => {
                        unacked.push(next, next);
                        model.insert(next, next);
                        next += 1;
                    }
                    3 => prop_assert_eq!(unacked.take(tag), model.remove(&tag)),
                    4 => {
                        let first = model.range(..=tag).next().map(|it| *it.0);
                        prop_assert_eq!(unacked.take_up_to(tag), first.and_then(|it| model.remove(&it)));
                    }
                    _ => {
                        let taken = unacked.take_if(|it| it % 7 == tag % 7);
                        let expected: Vec<u64> = model.keys().copied().filter(|it| it % 7 == tag % 7).collect();
                        model.retain(|it, _| it % 7 != tag % 7);
                        prop_assert_eq!(taken, expected);
                    }
                }
                prop_assert_eq!(unacked.len(), model.len());
                prop_assert_eq!(unacked.contains(tag), model.contains_key(&tag));
                prop_assert!(unacked.items.len() <= 2 * unacked.live + 64);
            }
        }
    }
}
