//! A map of points in ring order.
//!
//! The keys of its tree are positions alone, sixty-four bits of hash, so that the keys of one node of the tree fit into two
//! cache lines. Ids that share a position with one that came before them lie beside, in another tree, which is empty for
//! all that is to be expected.

use std::collections::{BTreeMap, btree_map};
use std::ops::Bound;

use vecino_model::PointId;

use crate::key::{Entry, Key};

/// Entries by key.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Entries {
    first: BTreeMap<u64, (PointId, Entry)>,
    /// Those whose position belongs to another id in `first`.
    beside: BTreeMap<Key, Entry>,
}

/// Where a key is, or would be.
pub(crate) enum Lookup<'a> {
    Known(&'a mut Entry),
    Vacant(Vacancy<'a>),
}

/// Where an entry can be put.
pub(crate) enum Vacancy<'a> {
    First(btree_map::VacantEntry<'a, u64, (PointId, Entry)>),
    Beside(btree_map::VacantEntry<'a, Key, Entry>),
}

impl Vacancy<'_> {
    /// Puts the entry of the key that was looked for there.
    pub fn insert(self, key: Key, entry: Entry) {
        match self {
            Self::First(place) => {
                place.insert((key.id, entry));
            }
            Self::Beside(place) => {
                place.insert(entry);
            }
        }
    }
}

impl Entries {
    /// The entry of a key.
    pub fn get(&self, key: &Key) -> Option<&Entry> {
        match self.first.get(&key.position) {
            Some((id, entry)) if *id == key.id => Some(entry),
            Some(_) => self.beside.get(key),
            None => None,
        }
    }

    /// Where a key is, or would be.
    pub fn look_up(&mut self, key: &Key) -> Lookup<'_> {
        let Self { first, beside } = self;
        match first.entry(key.position) {
            btree_map::Entry::Vacant(place) => Lookup::Vacant(Vacancy::First(place)),
            btree_map::Entry::Occupied(place) => {
                let (id, entry) = place.into_mut();
                if *id == key.id {
                    return Lookup::Known(entry);
                }
                match beside.entry(key.clone()) {
                    btree_map::Entry::Vacant(place) => Lookup::Vacant(Vacancy::Beside(place)),
                    btree_map::Entry::Occupied(place) => Lookup::Known(place.into_mut()),
                }
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.first.len() + self.beside.len()
    }

    /// Entries after a key, in ring order; those of one position in the order of their ids.
    pub fn after<'a>(&'a self, after: Option<&'a Key>) -> impl Iterator<Item = (Key, &'a Entry)> {
        let start = after.map_or(Bound::Unbounded, |key| Bound::Included(key.position));
        let is_after = move |key: &Key| after.is_none_or(|after| key > after);
        let first = self.first.range((start, Bound::Unbounded));
        let first = first.map(|(position, (id, entry))| (Key { position: *position, id: id.clone() }, entry));
        let mut first = first.filter(move |(key, _)| is_after(key)).peekable();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let beside = self.beside.range::<Key, _>((start, Bound::Unbounded));
        let mut beside = beside.map(|(key, entry)| (key.clone(), entry)).peekable();
        std::iter::from_fn(move || match (first.peek(), beside.peek()) {
            (Some((one, _)), Some((other, _))) if other < one => beside.next(),
            (Some(_), _) => first.next(),
            (None, _) => beside.next(),
        })
    }
}

impl FromIterator<(Key, Entry)> for Entries {
    /// Of keys in ascending order, each once.
    fn from_iter<I: IntoIterator<Item = (Key, Entry)>>(entries: I) -> Self {
        let mut beside = BTreeMap::new();
        let mut last = None;
        let mut is_first = |position| last.replace(position) != Some(position);
        let first = entries.into_iter().filter_map(|(key, entry)| {
            if is_first(key.position) {
                return Some((key.position, (key.id, entry)));
            }
            beside.insert(key, entry);
            None
        });
        Self { first: first.collect(), beside }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vecino_model::{NodeId, Version};

    use super::*;

    fn entry(time: u64) -> Entry {
        Entry { version: Version { time, node: NodeId::from_bytes([0; 16]), seq: 0 }, live: None }
    }

    proptest! {
        /// Against a plain map, with positions so few that most are shared.
        #[test]
        fn is_a_map_in_ring_order_however_many_ids_share_a_position(
            writes in prop::collection::vec((0u64..6, 0u64..6, 1u64..100), 0..60),
            after in prop::option::of((0u64..6, 0u64..6)),
        ) {
            let (mut entries, mut oracle) = (Entries::default(), BTreeMap::new());
            let key = |position: u64, id: u64| Key { position, id: id.into() };
            for (position, id, time) in writes {
                let key = key(position, id);
                match entries.look_up(&key) {
                    Lookup::Known(known) => {
                        prop_assert_eq!(&*known, &oracle[&key]);
                        *known = entry(time);
                    }
                    Lookup::Vacant(place) => {
                        prop_assert!(!oracle.contains_key(&key));
                        place.insert(key.clone(), entry(time));
                    }
                }
                oracle.insert(key, entry(time));
            }
            prop_assert_eq!(entries.len(), oracle.len());
            let all = || (0..36).map(|at| key(at / 6, at % 6));
            for key in all() {
                prop_assert_eq!(entries.get(&key), oracle.get(&key));
            }
            let after = after.map(|(position, id)| key(position, id));
            let is_after = |key: &Key| after.as_ref().is_none_or(|after| key > after);
            let expected: Vec<(Key, &Entry)> =
                oracle.iter().filter(|(key, _)| is_after(key)).map(|(key, entry)| (key.clone(), entry)).collect();
            prop_assert_eq!(entries.after(after.as_ref()).collect::<Vec<_>>(), expected);
            let at_once: Entries = oracle.clone().into_iter().collect();
            for key in all() {
                prop_assert_eq!(at_once.get(&key), oracle.get(&key));
            }
            prop_assert_eq!(at_once.after(None).count(), oracle.len());
        }
    }
}
