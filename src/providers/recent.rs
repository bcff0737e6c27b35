//! A map that knows in which order its entries were last used; each operation takes constant time.
//!
//! Entries stand in a ring of indices that begins and ends at [`END`]: the newest on one side of it, the oldest on the other. A place that an entry
//! left is used for the next, so that no entry ever moves.
//!
//! The key's own `Hash`, `Eq` and `Clone` may panic. So each change looks at the key first and links afterwards, and a panic finds nothing half done.

use std::{borrow::Borrow, collections::HashMap, hash::Hash};
use tokio::time::Instant;

/// The ring's one node without an entry.
const END: usize = 0;

pub(super) struct Recent<K, V> {
    places: HashMap<K, usize>,
    nodes: Vec<Node<K, V>>,
    free: Vec<usize>,
}

struct Node<K, V> {
    entry: Option<Entry<K, V>>,
    newer: usize,
    older: usize,
}

struct Entry<K, V> {
    key: K,
    value: V,
    used: Instant,
}

impl<K: Hash + Eq + Clone, V> Recent<K, V> {
    pub(super) fn new() -> Self {
        Self { places: HashMap::new(), nodes: vec![Node { entry: None, newer: END, older: END }], free: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// An entry that is used now.
    pub(super) fn touch<Q>(&mut self, key: &Q, now: Instant) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let at = *self.places.get(key)?;
        self.renew(at, now);
        self.nodes[at].entry.as_ref().map(|entry| &entry.value)
    }

    /// The key must be new.
    pub(super) fn insert(&mut self, key: K, value: V, now: Instant) {
        let at = self.free.last().copied().unwrap_or(self.nodes.len());
        let before = self.places.insert(key.clone(), at);
        debug_assert!(before.is_none(), "the key is new");
        let node = Node { entry: Some(Entry { key, value, used: now }), newer: at, older: at };
        match self.free.pop() {
            Some(at) => self.nodes[at] = node,
            None => self.nodes.push(node),
        }
        self.link(at);
    }

    pub(super) fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let at = self.places.remove(key)?;
        self.take(at)
    }

    /// The entry that was used before all others, and when that was.
    pub(super) fn oldest(&self) -> Option<(&V, Instant)> {
        self.nodes[self.nodes[END].newer].entry.as_ref().map(|entry| (&entry.value, entry.used))
    }

    /// It is in use.
    pub(super) fn renew_oldest(&mut self, now: Instant) {
        self.renew(self.nodes[END].newer, now);
    }

    pub(super) fn remove_oldest(&mut self) -> Option<V> {
        let at = self.nodes[END].newer;
        self.places.remove(&self.nodes[at].entry.as_ref()?.key);
        self.take(at)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.nodes.iter().filter_map(|node| node.entry.as_ref()).map(|entry| &entry.value)
    }

    fn renew(&mut self, at: usize, now: Instant) {
        if let Some(entry) = &mut self.nodes[at].entry {
            entry.used = now;
            self.unlink(at);
            self.link(at);
        }
    }

    /// As the newest.
    fn link(&mut self, at: usize) {
        let newest = self.nodes[END].older;
        (self.nodes[at].older, self.nodes[at].newer) = (newest, END);
        (self.nodes[newest].newer, self.nodes[END].older) = (at, at);
    }

    fn unlink(&mut self, at: usize) {
        let Node { newer, older, .. } = self.nodes[at];
        (self.nodes[older].newer, self.nodes[newer].older) = (newer, older);
    }

    fn take(&mut self, at: usize) -> Option<V> {
        self.unlink(at);
        self.free.push(at);
        let entry = self.nodes[at].entry.take();
        if self.places.is_empty() {
            // Tables keep the size that they once had.
            *self = Self::new();
        }
        entry.map(|entry| entry.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Against a list that is searched from end to end.
    #[test]
    fn it_is_a_list_of_entries_from_the_oldest_to_the_newest() {
        let start = Instant::now();
        for seed in 0..200 {
            let mut dice = fastrand::Rng::with_seed(seed);
            let mut recent = Recent::new();
            let mut list: Vec<(u8, u32, Instant)> = Vec::new();
            for step in 0..300 {
                let (key, now) = (dice.u8(..12), start + Duration::from_secs(step.into()));
                let place = list.iter().position(|(known, ..)| *known == key);
                match dice.u8(..6) {
                    0 | 1 => {
                        let touched = recent.touch(&key, now).copied();
                        assert_eq!(touched, place.map(|at| list[at].1), "seed {seed}, step {step}");
                        if let Some(at) = place {
                            let (key, value, _) = list.remove(at);
                            list.push((key, value, now));
                        }
                    }
                    2 if place.is_none() => {
                        recent.insert(key, step, now);
                        list.push((key, step, now));
                    }
                    3 => assert_eq!(recent.remove(&key), place.map(|at| list.remove(at).1)),
                    4 if !list.is_empty() => assert_eq!(recent.remove_oldest(), Some(list.remove(0).1)),
                    5 if !list.is_empty() => {
                        recent.renew_oldest(now);
                        let (key, value, _) = list.remove(0);
                        list.push((key, value, now));
                    }
                    _ => {}
                }
                let oldest = recent.oldest().map(|(value, used)| (*value, used));
                assert_eq!(oldest, list.first().map(|(_, value, used)| (*value, *used)), "seed {seed}, step {step}");
                assert_eq!((recent.len(), recent.values().count()), (list.len(), list.len()));
                assert!(recent.nodes.len() <= 13, "places are used again");
            }
            let rest = std::iter::from_fn(|| recent.remove_oldest());
            assert!(rest.eq(list.into_iter().map(|(_, value, _)| value)), "seed {seed}");
        }
    }
}
