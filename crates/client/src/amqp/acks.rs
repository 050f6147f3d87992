//! Combines acknowledgements of single messages into as few AMQP methods as their order allows. Pure.

use std::collections::BTreeSet;

/// The deliveries of one session that are not answered yet.
#[derive(Debug, Default)]
pub(crate) struct Outstanding {
    numbers: BTreeSet<u64>,
}

/// One `basic.ack` to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) number: u64,
    /// It acknowledges every earlier delivery as well.
    pub(crate) multiple: bool,
}

impl Outstanding {
    pub(crate) fn delivered(&mut self, number: u64) {
        self.numbers.insert(number);
    }

    /// Removes a delivery that is answered by a `basic.nack`. False: it was not outstanding.
    pub(crate) fn settled(&mut self, number: u64) -> bool {
        self.numbers.remove(&number)
    }

    /// The acks for these deliveries. One that is not outstanding gets none: to ack it twice is a protocol error.
    pub(crate) fn acknowledge(&mut self, numbers: impl IntoIterator<Item = u64>) -> Vec<Ack> {
        let mut wanted: BTreeSet<u64> =
            numbers.into_iter().filter(|number| self.numbers.remove(number)).collect();
        let mut acks = Vec::new();
        // One method acknowledges everything below the oldest delivery that stays outstanding.
        let covered = match self.numbers.first() {
            Some(oldest_waiting) => {
                let above = wanted.split_off(oldest_waiting);
                std::mem::replace(&mut wanted, above)
            }
            None => std::mem::take(&mut wanted),
        };
        if let Some(&number) = covered.last() {
            acks.push(Ack { number, multiple: covered.len() > 1 });
        }
        acks.extend(wanted.into_iter().map(|number| Ack { number, multiple: false }));
        acks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn outstanding(numbers: impl IntoIterator<Item = u64>) -> Outstanding {
        let mut outstanding = Outstanding::default();
        numbers.into_iter().for_each(|number| outstanding.delivered(number));
        outstanding
    }

    fn ack(number: u64, multiple: bool) -> Ack {
        Ack { number, multiple }
    }

    #[test]
    fn the_oldest_deliveries_are_acknowledged_by_one_method() {
        let mut all = outstanding(1..=5);
        assert_eq!(all.acknowledge([2, 1, 3]), [ack(3, true)]);
        assert_eq!(all.acknowledge([5]), [ack(5, false)]);
        assert_eq!(all.acknowledge([4]), [ack(4, false)]);
    }

    #[test]
    fn deliveries_after_a_gap_are_acknowledged_one_by_one() {
        assert_eq!(
            outstanding(1..=5).acknowledge([1, 2, 4, 5]),
            [ack(2, true), ack(4, false), ack(5, false)]
        );
    }

    #[test]
    fn no_delivery_is_answered_twice() {
        let mut all = outstanding([7]);
        assert_eq!(all.acknowledge([7, 7, 8]), [ack(7, false)]);
        assert_eq!(all.acknowledge([7]), []);
        assert!(!all.settled(7));
    }

    proptest! {
        /// Whatever the order, a broker that knows the rules sees each wanted delivery answered once and no other.
        #[test]
        fn acknowledgements_have_the_same_effect_as_single_ones(batches in prop::collection::vec(prop::collection::vec(1_u64..60, 0..20), 0..8)) {
            let mut ours = outstanding(1..60);
            let mut broker: BTreeSet<u64> = (1..60).collect();
            let mut wanted: BTreeSet<u64> = BTreeSet::new();
            for batch in batches {
                wanted.extend(&batch);
                for Ack { number, multiple } in ours.acknowledge(batch) {
                    prop_assert!(broker.contains(&number), "unknown delivery tag");
                    if multiple {
                        broker = broker.split_off(&(number + 1));
                    } else {
                        broker.remove(&number);
                    }
                }
                let expected: BTreeSet<u64> = (1..60).filter(|number| !wanted.contains(number)).collect();
                prop_assert_eq!(&broker, &expected);
            }
        }
    }
}
