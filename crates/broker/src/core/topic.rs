//! Topic patterns in a trie, which a routing key is matched against word by word.

use std::collections::HashMap;

/// Patterns of one exchange and what is bound under each.
pub(crate) struct Topics<T> {
    root: Node<T>,
}

struct Node<T> {
    words: HashMap<Box<str>, Node<T>>,
    /// `*`
    any: Option<Box<Node<T>>>,
    /// `#`
    rest: Option<Box<Node<T>>>,
    bound: Vec<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Node<T> {
        Node { words: HashMap::new(), any: None, rest: None, bound: Vec::new() }
    }
}

impl<T> Default for Topics<T> {
    fn default() -> Topics<T> {
        Topics { root: Node::default() }
    }
}

/// The words between the dots. The empty text has no word, rather than one empty word.
fn words(text: &str) -> impl Iterator<Item = &str> {
    (!text.is_empty()).then(|| text.split('.')).into_iter().flatten()
}

impl<T> Node<T> {
    fn is_empty(&self) -> bool {
        self.words.is_empty() && self.any.is_none() && self.rest.is_none() && self.bound.is_empty()
    }
}

impl<T: Copy + PartialEq> Topics<T> {
    pub(crate) fn insert(&mut self, pattern: &str, value: T) {
        let mut node = &mut self.root;
        for word in words(pattern) {
            node = match word {
                "*" => node.any.get_or_insert_default(),
                "#" => node.rest.get_or_insert_default(),
                word => node.words.entry(word.into()).or_default(),
            };
        }
        node.bound.push(value);
    }

    pub(crate) fn remove(&mut self, pattern: &str, value: T) {
        let words: Vec<&str> = words(pattern).collect();
        Topics::take(&mut self.root, &words, value);
    }

    /// Recurses at most 128 deep, because a pattern is a short string.
    fn take(node: &mut Node<T>, words: &[&str], value: T) {
        let Some((first, tail)) = words.split_first() else {
            if let Some(index) = node.bound.iter().position(|it| *it == value) {
                node.bound.swap_remove(index);
            }
            return;
        };
        match *first {
            "*" => {
                if let Some(next) = &mut node.any {
                    Topics::take(next, tail, value);
                    node.any.take_if(|it| it.is_empty());
                }
            }
            "#" => {
                if let Some(next) = &mut node.rest {
                    Topics::take(next, tail, value);
                    node.rest.take_if(|it| it.is_empty());
                }
            }
            word => {
                if let Some(next) = node.words.get_mut(word) {
                    Topics::take(next, tail, value);
                    if next.is_empty() {
                        node.words.remove(word);
                    }
                }
            }
        }
    }

    /// Calls `found` for each value whose pattern matches, possibly more than once for the same value.
    pub(crate) fn route(&self, key: &str, found: &mut impl FnMut(T)) {
        // The nodes reached by the words so far, each once: a pattern with many `#` can't make this exponential.
        let mut here: Vec<Reached<'_, T>> = Vec::new();
        let mut next: Vec<Reached<'_, T>> = Vec::new();
        Topics::enter((&self.root, false), &mut here);
        for word in words(key) {
            for (node, stays) in &here {
                if let Some(it) = node.words.get(word) {
                    Topics::enter((it, false), &mut next);
                }
                if let Some(it) = &node.any {
                    Topics::enter((it, false), &mut next);
                }
                if *stays {
                    Topics::enter((node, true), &mut next);
                }
            }
            here.clear();
            std::mem::swap(&mut here, &mut next);
        }
        for (node, _) in here {
            node.bound.iter().copied().for_each(&mut *found);
        }
    }

    /// Adds a node, and the nodes that are reached from it when a `#` stands for no word.
    fn enter<'a>(mut reached: Reached<'a, T>, set: &mut Vec<Reached<'a, T>>) {
        while !set.iter().any(|it| std::ptr::eq(it.0, reached.0)) {
            set.push(reached);
            match &reached.0.rest {
                Some(rest) => reached = (rest, true),
                None => return,
            }
        }
    }
}

/// A node, and whether it is a `#`, which matches any number of words.
type Reached<'a, T> = (&'a Node<T>, bool);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern.split_first(), key.split_first()) {
            (None, None) => true,
            (Some((&"#", rest)), _) => {
                matches(rest, key) || key.split_first().is_some_and(|(_, tail)| matches(pattern, tail))
            }
            (Some((&"*", rest)), Some((_, tail))) => matches(rest, tail),
            (Some((word, rest)), Some((head, tail))) => word == head && matches(rest, tail),
            _ => false,
        }
    }

    fn routed(patterns: &[String], key: &str) -> Vec<usize> {
        let mut topics = Topics::default();
        for (index, pattern) in patterns.iter().enumerate() {
            topics.insert(pattern, index);
        }
        let mut found = Vec::new();
        topics.route(key, &mut |it| found.push(it));
        found.sort_unstable();
        found.dedup();
        found
    }

    #[test]
    fn the_specification_s_examples() {
        let patterns = ["*.stock.#", "usd.stock", "usd.*", "#", "", "*", "#.#"].map(String::from);
        assert_eq!(routed(&patterns, "usd.stock"), [0, 1, 2, 3, 6]);
        assert_eq!(routed(&patterns, "eur.stock.db"), [0, 3, 6]);
        assert_eq!(routed(&patterns, "stock.nasdaq"), [3, 6]);
        // An empty routing key has no word, as in RabbitMQ.
        assert_eq!(routed(&patterns, ""), [3, 4, 6]);
    }

    #[test]
    fn a_pattern_of_many_hashes_takes_no_exponential_time() {
        let pattern = "#.a.".repeat(60) + "#";
        let key = "a.".repeat(120) + "b";
        assert_eq!(routed(&[pattern], &key), [0]);
    }

    proptest! {
        /// Fails when the trie and the definition of a match disagree on any pattern and key, or when a removed
        /// pattern still matches or takes another with it.
        #[test]
        fn agrees_with_the_definition(
            patterns in prop::collection::vec("([ab*#](\\.[ab*#]){0,3})", 1..8),
            key in "([ab](\\.[ab]){0,4})",
            removed in 0usize..8,
        ) {
            let words: Vec<&str> = key.split('.').collect();
            let expected = |skip: Option<usize>| -> Vec<usize> {
                (0..patterns.len())
                    .filter(|it| Some(*it) != skip)
                    .filter(|it| matches(&patterns[*it].split('.').collect::<Vec<_>>(), &words))
                    .collect()
            };
            prop_assert_eq!(routed(&patterns, &key), expected(None));
            let mut topics = Topics::default();
            for (index, pattern) in patterns.iter().enumerate() {
                topics.insert(pattern, index);
            }
            let removed = removed % patterns.len();
            topics.remove(&patterns[removed], removed);
            let mut found = Vec::new();
            topics.route(&key, &mut |it| found.push(it));
            found.sort_unstable();
            found.dedup();
            prop_assert_eq!(found, expected(Some(removed)));
            for (index, pattern) in patterns.iter().enumerate() {
                topics.remove(pattern, index);
            }
            prop_assert!(topics.root.is_empty());
        }
    }
}
