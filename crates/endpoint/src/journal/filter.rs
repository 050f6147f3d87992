//! A Bloom filter of ended tasks: says that a task has not ended, or that the journal must be read. Its size is constant.

use wire::TaskId;

/// 512 KiB: with 300,000 ids, one look-up in 250 is unnecessary; with more ids, more look-ups are.
const BITS: usize = 1 << 22;
/// Bits for each id.
const HASHES: u64 = 4;

/// A Bloom filter over the ids of tasks.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    words: Box<[u64]>,
}

impl Default for Filter {
    fn default() -> Self {
        Self::of(BITS)
    }
}

impl Filter {
    /// A filter with this many bits, a power of two of at least 64.
    fn of(bits: usize) -> Self {
        // Zeroed pages cost nothing until they are touched.
        Self { words: vec![0; bits / 64].into() }
    }

    /// A filter so small that nearly every task is looked up.
    #[cfg(test)]
    pub(crate) fn tiny() -> Self {
        Self::of(64)
    }

    pub(crate) fn insert(&mut self, task: TaskId) {
        for (word, bit) in self.places(task) {
            self.words[word] |= bit;
        }
    }

    /// False if the task was never inserted.
    pub(crate) fn may_hold(&self, task: TaskId) -> bool {
        self.places(task).all(|(word, bit)| self.words[word] & bit != 0)
    }

    fn places(&self, task: TaskId) -> impl Iterator<Item = (usize, u64)> + use<> {
        let (high, low) = task.as_uuid().as_u64_pair();
        // Ids may be made from the time and differ in few bits.
        let first = scatter(high ^ scatter(low));
        let step = scatter(first) | 1;
        let mask = self.words.len() as u64 * 64 - 1;
        (0..HASHES).map(move |index| {
            let bit = first.wrapping_add(step.wrapping_mul(index)) & mask;
            #[allow(clippy::cast_possible_truncation, reason = "an index into a slice that is there")]
            ((bit / 64) as usize, 1 << (bit % 64))
        })
    }
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bits", self.words.len() * 64)
    }
}

/// The finalizer of SplitMix64.
fn scatter(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn the_filter_contains_what_ended_and_few_others() {
        let mut filter = Filter::default();
        // Ids of one moment, as a service that draws them by time makes them.
        let task = |number: u128| TaskId::from_uuid(Uuid::from_u128((0x0199 << 112) + number));
        (0..100_000).for_each(|number| filter.insert(task(number)));
        assert!((0..100_000).all(|number| filter.may_hold(task(number))));
        let wrong = (100_000..200_000).filter(|number| filter.may_hold(task(*number))).count();
        assert!(wrong < 100, "{wrong} of 100,000 are asked about in vain");
        let mut tiny = Filter::tiny();
        (0..100).for_each(|number| tiny.insert(task(number)));
        assert!((0..200).all(|number| tiny.may_hold(task(number))), "a full one holds everything");
    }
}
