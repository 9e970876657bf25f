//! The candidates of a walk, nearest first, and how many of them may be results.

use crate::params::Slot;

/// Nodes that a walk has measured, in order of distance, ties by slot; at most `ef` of them may be results.
///
/// One sorted list serves as the paper's candidates *C* and results *W* at once. Where nodes may be walked through
/// without being results (buried ones, or ones that a filter refuses) the list also holds those nearer than its
/// last result, so that they neither displace results nor end the walk.
#[derive(Default)]
pub(crate) struct Pool {
    keys: Vec<u64>,
    marks: Vec<u8>,
    results: usize,
    ef: usize,
    /// Every entry before it is expanded.
    next: usize,
}

impl Pool {
    /// Empties the pool, and lets it hold `ef` results.
    pub fn begin(&mut self, ef: usize) {
        self.keys.clear();
        self.marks.clear();
        (self.results, self.ef, self.next) = (0, ef, 0);
    }

    /// Adds a node that was not added before, unless the pool is full of nearer results.
    #[inline]
    pub fn insert(&mut self, distance: f32, slot: Slot, is_result: impl FnOnce() -> bool) {
        let key = key(distance, slot);
        if self.results == self.ef && self.keys.last().is_some_and(|last| *last < key) {
            return;
        }
        let is_result = is_result();
        let at = self.keys.partition_point(|other| *other < key);
        self.keys.insert(at, key);
        self.marks.insert(at, if is_result { RESULT } else { 0 });
        self.next = self.next.min(at);
        if is_result {
            self.results += 1;
            if self.results > self.ef {
                self.results -= 1;
                self.drop_last();
            }
            if self.results == self.ef {
                while self.marks.last().is_some_and(|mark| mark & RESULT == 0) {
                    self.drop_last();
                }
            }
        }
    }

    /// What is not below it would not be kept.
    #[inline(always)]
    pub fn bound(&self) -> f32 {
        match self.keys.last() {
            Some(last) if self.results == self.ef => distance(*last),
            _ => f32::INFINITY,
        }
    }

    /// The nearest node not given out yet.
    #[inline]
    pub fn expand(&mut self) -> Option<Slot> {
        while let Some(mark) = self.marks.get_mut(self.next) {
            self.next += 1;
            if *mark & EXPANDED == 0 {
                *mark |= EXPANDED;
                return Some(self.keys[self.next - 1] as Slot);
            }
        }
        None
    }

    /// The nearest node not given out yet, with its distance.
    #[inline]
    pub fn expand_near(&mut self) -> Option<(f32, Slot)> {
        self.expand().map(|slot| (distance(self.keys[self.next - 1]), slot))
    }

    /// The node that [`Self::expand`] would give out if nothing nearer came.
    #[inline]
    pub fn peek(&self) -> Option<Slot> {
        (self.next..self.keys.len()).find(|at| self.marks[*at] & EXPANDED == 0).map(|at| self.keys[at] as Slot)
    }

    /// Lets every node be given out again, for the walk of the layer below.
    pub fn rewind(&mut self) {
        self.next = 0;
        self.marks.iter_mut().for_each(|mark| *mark &= !EXPANDED);
    }

    /// Distances and slots of the results, nearest first.
    pub fn iter(&self) -> impl Iterator<Item = (f32, Slot)> + Clone + '_ {
        let results = self.keys.iter().zip(&self.marks).filter(|(_, mark)| *mark & RESULT != 0);
        results.map(|(key, _)| (distance(*key), *key as Slot))
    }

    /// Slots of all nodes that it holds, results or not.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.keys.iter().map(|key| *key as Slot)
    }

    fn drop_last(&mut self) {
        self.keys.pop();
        self.marks.pop();
        self.next = self.next.min(self.keys.len());
    }
}

/// A number that orders as distance, then slot.
#[inline(always)]
pub(crate) fn key(distance: f32, slot: Slot) -> u64 {
    // Adding zero makes one of the two zeros.
    let bits = (distance + 0.0).to_bits();
    let ordered = if bits >> 31 == 0 { bits | (1 << 31) } else { !bits };
    (u64::from(ordered) << 32) | u64::from(slot)
}

/// The distance of a [`key`].
#[inline(always)]
pub(crate) fn distance(key: u64) -> f32 {
    let ordered = (key >> 32) as u32;
    f32::from_bits(if ordered >> 31 == 1 { ordered & !(1 << 31) } else { !ordered })
}

const EXPANDED: u8 = 1;
const RESULT: u8 = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_order_as_distances_and_give_them_back() {
        let distances = [f32::NEG_INFINITY, -1e30, -1.0, -1e-40, 0.0, 1e-40, 0.5, 1.0, 1e30, f32::INFINITY];
        for pair in distances.windows(2) {
            assert!(key(pair[0], u32::MAX) < key(pair[1], 0), "{pair:?}");
        }
        for expected in distances {
            assert_eq!(distance(key(expected, 7)), expected);
        }
        assert!(key(1.0, 3) < key(1.0, 4));
        assert_eq!(key(-0.0, 3), key(0.0, 3));
    }

    proptest! {
        /// Against a sorted list of everything: the results are the nearest `ef`, and what is not a result costs none.
        #[test]
        fn holds_the_nearest_results_whatever_comes_between(
            ef in 1usize..12,
            nodes in prop::collection::vec((0u8..30, any::<bool>()), 0..80),
            expand_every in 1usize..4,
        ) {
            let mut pool = Pool::default();
            pool.begin(ef);
            let mut model = Vec::new();
            let mut expanded = Vec::new();
            for (slot, (distance, is_result)) in (0u32..).zip(&nodes) {
                pool.insert(f32::from(*distance), slot, || *is_result);
                if *is_result {
                    model.push((*distance, slot));
                    model.sort();
                    model.truncate(ef);
                }
                if (slot as usize).is_multiple_of(expand_every) {
                    let peeked = pool.peek();
                    let next = pool.expand();
                    prop_assert_eq!(peeked, next);
                    expanded.extend(next);
                }
                let got: Vec<_> = pool.iter().map(|(distance, slot)| (distance as u8, slot)).collect();
                prop_assert_eq!(&got, &model);
                prop_assert_eq!(pool.results, model.len());
            }
            expanded.extend(std::iter::from_fn(|| pool.expand()));
            let count = expanded.len();
            expanded.sort();
            expanded.dedup();
            prop_assert_eq!(count, expanded.len(), "a node was given out twice");
            for (_, slot) in model {
                prop_assert!(expanded.contains(&slot), "result {} was never given out", slot);
            }
        }
    }
}
