//! A queue of what endpoints sent that takes from each endpoint in turn, however much another sends.

use std::collections::{HashMap, VecDeque};

use wire::EndpointId;

#[derive(Debug)]
pub(super) struct FairQueue<T> {
    waiting: HashMap<EndpointId, VecDeque<T>>,
    /// The endpoints that have something in the queue, each once; the first is next.
    order: VecDeque<EndpointId>,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        FairQueue { waiting: HashMap::new(), order: VecDeque::new() }
    }
}

impl<T> FairQueue<T> {
    /// Adds `item` behind what `endpoint` sent before.
    pub(super) fn push(&mut self, endpoint: EndpointId, item: T) {
        let waiting = self.waiting.entry(endpoint).or_default();
        if waiting.is_empty() {
            self.order.push_back(endpoint);
        }
        waiting.push_back(item);
    }

    /// Replaces what `endpoint` sent before by `item`. Returns what was replaced.
    pub(super) fn replace(&mut self, endpoint: EndpointId, item: T) -> Option<T> {
        let before = self.waiting.get_mut(&endpoint).and_then(VecDeque::pop_back);
        match before {
            Some(_) => self.waiting.entry(endpoint).or_default().push_back(item),
            None => self.push(endpoint, item),
        }
        before
    }

    /// Takes the oldest item of the endpoint whose turn it is, which then goes behind all others.
    pub(super) fn take(&mut self) -> Option<T> {
        let endpoint = self.order.pop_front()?;
        let waiting = self.waiting.get_mut(&endpoint)?;
        let item = waiting.pop_front();
        if waiting.is_empty() {
            self.waiting.remove(&endpoint);
        } else {
            self.order.push_back(endpoint);
        }
        item
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn endpoint(n: u128) -> EndpointId {
        EndpointId::from_uuid(Uuid::from_u128(n))
    }

    fn drained(mut turns: FairQueue<&'static str>) -> Vec<&'static str> {
        let all = std::iter::from_fn(|| turns.take()).collect();
        assert!(turns.is_empty() && turns.waiting.is_empty(), "nothing is remembered");
        all
    }

    #[test]
    fn each_endpoint_has_its_turn_and_its_own_order() {
        let mut turns = FairQueue::default();
        for item in ["a1", "a2", "a3"] {
            turns.push(endpoint(1), item);
        }
        turns.push(endpoint(2), "b1");
        assert_eq!(turns.take(), Some("a1"));
        turns.push(endpoint(3), "c1");
        turns.push(endpoint(1), "a4");
        assert_eq!(drained(turns), ["b1", "a2", "c1", "a3", "a4"]);
    }

    #[test]
    fn the_newest_takes_the_turn_of_the_one_before() {
        let mut turns = FairQueue::default();
        assert_eq!(turns.replace(endpoint(1), "a1"), None);
        assert_eq!(turns.replace(endpoint(2), "b1"), None);
        assert_eq!(turns.replace(endpoint(1), "a2"), Some("a1"));
        assert_eq!(turns.replace(endpoint(1), "a3"), Some("a2"));
        assert_eq!(drained(turns), ["a3", "b1"]);
    }
}
