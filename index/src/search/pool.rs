//! The candidates of a walk, nearest first, how many of them may be results, and how far the walk goes.

use crate::kernel::Kernel;
use crate::kernel::sorted::Run;
use crate::slot::{SLOT_MAX, Slot};

/// Bits of a [`key`] that are free, since no slot is so high.
const MARKS: u32 = SLOT_MAX.leading_zeros();
/// Mark of a node that was given out.
const EXPANDED: u64 = 1;
/// Mark of a node that may be a result.
const RESULT: u64 = 2;
const _: () = assert!((EXPANDED | RESULT).ilog2() < MARKS);

/// How far a walk goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beam {
    /// Results that it keeps at most.
    pub most: usize,
    /// Results that it has before it ends because of a distance.
    pub least: usize,
    /// Results that are wanted, no more than `least`.
    pub k: usize,
    /// How many times as far as the last of these it looks,
    pub expansion: f32,
    /// measured from this distance on.
    pub origin: f32,
}

impl Beam {
    /// Until the nearest `ef` are found, as HNSW has it.
    pub fn fixed(ef: usize) -> Self {
        Self { most: ef, least: ef, k: ef, expansion: 1.0, origin: 0.0 }
    }
}

/// Nodes that a walk has measured, in order of distance, ties by slot; the beam says how many of them may be results.
///
/// One sorted list serves as the paper's candidates *C* and results *W* at once. Where nodes may be walked through
/// without being results (deleted ones, or ones that a filter refuses) the list also holds those nearer than its
/// last result, so that they neither displace results nor end the walk.
pub(crate) struct Pool {
    /// A [`key`] for each node, with what is known of it in the last bits.
    entries: Run,
    results: usize,
    beam: Beam,
    /// The place of result number `beam.k`, once there are as many results: [`Self::bound`] goes by it.
    wanted: usize,
    /// The place of result number `beam.least`, in the same way.
    least: usize,
    /// Every entry before it is expanded.
    next: usize,
}

impl Pool {
    /// An empty pool that takes one result.
    pub fn new(kernel: Kernel) -> Self {
        Self { entries: Run::new(kernel), results: 0, beam: Beam::fixed(1), wanted: 0, least: 0, next: 0 }
    }

    /// Empties the pool, and lets it hold `results` results.
    pub fn begin(&mut self, results: usize) {
        self.begin_walk(Beam::fixed(results));
    }

    /// Empties the pool for a walk that goes so far.
    pub fn begin_walk(&mut self, beam: Beam) {
        debug_assert!(beam.k <= beam.least && beam.least <= beam.most, "{beam:?}");
        self.entries.clear();
        (self.results, self.next, self.wanted, self.least) = (0, 0, 0, 0);
        self.beam = beam;
    }

    #[inline(always)]
    fn is_full(&self) -> bool {
        self.results == self.beam.most
    }

    /// Adds a node that was not added before, unless the pool is full of nearer results.
    #[inline]
    pub fn insert(&mut self, distance: f32, slot: Slot, is_result: impl FnOnce() -> bool) {
        let key = key(distance, slot);
        if self.is_full() && self.entries.as_slice().last().is_some_and(|last| *last < key) {
            return;
        }
        let is_result = is_result();
        let at = self.entries.insert(key | if is_result { RESULT } else { 0 });
        self.next = self.next.min(at);
        self.results += usize::from(is_result);
        let Self { entries, results, beam, wanted, least, .. } = self;
        if beam.least < beam.most {
            follow(wanted, beam.k, at, is_result, *results, entries.as_slice());
            follow(least, beam.least, at, is_result, *results, entries.as_slice());
        }
        if is_result {
            if self.results > self.beam.most {
                self.results -= 1;
                self.drop_last();
            }
            if self.results < self.entries.as_slice().len() && self.is_full() {
                while self.entries.as_slice().last().is_some_and(|last| last & RESULT == 0) {
                    self.drop_last();
                }
            }
        }
    }

    /// What is farther is not looked at.
    #[inline]
    pub fn bound(&self) -> f32 {
        let Beam { most, least, expansion, origin, .. } = self.beam;
        let entries = self.entries.as_slice();
        let last = match entries.last() {
            Some(last) if self.is_full() => distance(*last),
            _ => f32::INFINITY,
        };
        if least == most || self.results < least {
            return last;
        }
        let wanted = (distance(entries[self.wanted]) - origin).max(0.0) * expansion + origin;
        wanted.max(distance(entries[self.least])).min(last)
    }

    /// The nearest node not given out yet, with its distance.
    #[inline]
    pub fn expand(&mut self) -> Option<(f32, Slot)> {
        while let Some(entry) = self.entries.as_mut_slice().get_mut(self.next) {
            self.next += 1;
            if *entry & EXPANDED == 0 {
                *entry |= EXPANDED;
                return Some((distance(*entry), slot(*entry)));
            }
        }
        None
    }

    /// The node that [`Self::expand`] would give out if nothing nearer came.
    #[inline]
    pub fn peek(&self) -> Option<Slot> {
        self.entries.as_slice()[self.next..].iter().find(|entry| *entry & EXPANDED == 0).map(|entry| slot(*entry))
    }

    /// Lets every node be given out again, for the walk of the layer below.
    pub fn rewind(&mut self) {
        self.next = 0;
        self.entries.as_mut_slice().iter_mut().for_each(|entry| *entry &= !EXPANDED);
    }

    /// Distances and slots of the results, nearest first.
    pub fn iter(&self) -> impl Iterator<Item = (f32, Slot)> + Clone + '_ {
        self.entries
            .as_slice()
            .iter()
            .filter(|entry| *entry & RESULT != 0)
            .map(|entry| (distance(*entry), slot(*entry)))
    }

    /// Slots of all nodes that it holds, results or not.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.entries.as_slice().iter().map(|entry| slot(*entry))
    }

    fn drop_last(&mut self) {
        self.entries.pop();
        self.next = self.next.min(self.entries.as_slice().len());
    }
}

/// Keeps `place` where the result of a number is, counted from 1, after an entry was put in at `at`.
#[inline(always)]
fn follow(place: &mut usize, number: usize, at: usize, is_result: bool, results: usize, entries: &[u64]) {
    if results < number || at > *place && results > number {
        return;
    }
    match (is_result, results == number) {
        // There are as many now.
        (true, true) => *place = entries.len() - 1,
        // It is the one before.
        (true, false) => {}
        (false, _) if at <= *place => *place += 1,
        (false, _) => return,
    }
    while entries[*place] & RESULT == 0 {
        *place -= 1;
    }
}

/// A number that orders as distance, then slot.
#[inline(always)]
pub(crate) fn key(distance: f32, slot: Slot) -> u64 {
    // Adding zero makes one of the two zeros.
    let bits = (distance + 0.0).to_bits();
    let ordered = if bits >> 31 == 0 { bits | (1 << 31) } else { !bits };
    (u64::from(ordered) << 32) | (u64::from(slot) << MARKS)
}

/// The distance of a [`key`].
#[inline(always)]
pub(crate) fn distance(key: u64) -> f32 {
    let ordered = (key >> 32) as u32;
    f32::from_bits(if ordered >> 31 == 1 { ordered & !(1 << 31) } else { !ordered })
}

#[inline(always)]
fn slot(key: u64) -> Slot {
    (key as u32) >> MARKS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_order_as_distances_and_give_them_back() {
        let distances = [f32::NEG_INFINITY, -1e30, -1.0, -1e-40, 0.0, 1e-40, 0.5, 1.0, 1e30, f32::INFINITY];
        for pair in distances.windows(2) {
            assert!(key(pair[0], SLOT_MAX) < key(pair[1], 0), "{pair:?}");
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
            (k, more, most) in (1usize..5, 0usize..4, 1usize..6),
            nodes in prop::collection::vec((0u8..30, any::<bool>()), 0..80),
            expand_every in 1usize..4,
        ) {
            let mut pool = Pool::new(Kernel::best());
            let (ef, least, expansion, origin) = (k + more + most, k + more, 1.5, -1.0);
            pool.begin_walk(Beam { most: ef, least, k, expansion, origin });
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
                    let next = pool.expand().map(|(_, slot)| slot);
                    prop_assert_eq!(peeked, next);
                    expanded.extend(next);
                }
                let got: Vec<_> = pool.iter().map(|(distance, slot)| (distance as u8, slot)).collect();
                prop_assert_eq!(&got, &model);
                prop_assert_eq!(pool.results, model.len());
                let result = |number: usize| model.get(number - 1).map_or(f32::INFINITY, |(far, _)| f32::from(*far));
                let bound = result(least).max((result(k) - origin) * expansion + origin).min(result(ef));
                prop_assert_eq!(pool.bound(), bound);
            }
            expanded.extend(std::iter::from_fn(|| pool.expand().map(|(_, slot)| slot)));
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
