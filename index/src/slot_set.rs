//! A set of slots that any number of threads change and walk through at once.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::arena::{Arena, NoMemory};
use crate::params::Slot;

/// A bit for each slot, and for each group of them an upper bound of how many are set, so that what is mostly empty is
/// gone through quickly.
pub(crate) struct SlotSet {
    words: Arena<AtomicU32>,
    counts: Arena<AtomicU32>,
}

impl SlotSet {
    /// No slots.
    pub fn new(name: &'static str) -> Self {
        Self { words: Arena::new(name, 1), counts: Arena::new(name, 1) }
    }

    /// Makes room for a slot.
    pub fn reserve(&self, slot: Slot) -> Result<(), NoMemory> {
        self.words.reserve(slot / WORD_SLOTS)?;
        self.counts.reserve(slot / GROUP_SLOTS)
    }

    /// Adds a slot that has room. Whether it was not there.
    pub fn insert(&self, slot: Slot) -> bool {
        // Counted first, so that no slot that is there is passed over.
        let count = &self.counts.get(slot / GROUP_SLOTS)[0];
        count.fetch_add(1, Ordering::AcqRel);
        let bit = 1 << (slot % WORD_SLOTS);
        let is_new = self.words.get(slot / WORD_SLOTS)[0].fetch_or(bit, Ordering::AcqRel) & bit == 0;
        if !is_new {
            count.fetch_sub(1, Ordering::AcqRel);
        }
        is_new
    }

    /// Removes a slot that has room. Whether it was there.
    pub fn remove(&self, slot: Slot) -> bool {
        let bit = 1 << (slot % WORD_SLOTS);
        let was_there = self.words.get(slot / WORD_SLOTS)[0].fetch_and(!bit, Ordering::AcqRel) & bit != 0;
        if was_there {
            self.counts.get(slot / GROUP_SLOTS)[0].fetch_sub(1, Ordering::AcqRel);
        }
        was_there
    }

    /// The slots below `slots`, ascending. One that is there all the time is found.
    pub fn iter(&self, slots: u32) -> impl Iterator<Item = Slot> + '_ {
        let load = |arena: &Arena<AtomicU32>, at| arena.get(at).first().map_or(0, |word| word.load(Ordering::Acquire));
        let groups = (0..slots.div_ceil(GROUP_SLOTS)).filter(move |group| load(&self.counts, *group) > 0);
        let words = groups.flat_map(|group| group * GROUP_WORDS..(group + 1) * GROUP_WORDS);
        words.flat_map(move |at| {
            let mut word = load(&self.words, at);
            std::iter::from_fn(move || {
                let bit = word.trailing_zeros();
                (bit < WORD_SLOTS).then(|| {
                    word &= word - 1;
                    at * WORD_SLOTS + bit
                })
            })
        })
    }

    /// Bytes of memory that so many slots take.
    pub fn bytes(&self, slots: usize) -> usize {
        self.words.bytes(slots.div_ceil(WORD_SLOTS as usize)) + self.counts.bytes(slots.div_ceil(GROUP_SLOTS as usize))
    }
}

const WORD_SLOTS: u32 = 32;
const GROUP_WORDS: u32 = 64;
const GROUP_SLOTS: u32 = WORD_SLOTS * GROUP_WORDS;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 3 } else { 100 }))]

        #[test]
        fn behaves_like_an_ordered_set(steps in prop::collection::vec((0u32..5_000, any::<bool>()), 0..200)) {
            let (set, mut model) = (SlotSet::new("test"), BTreeSet::new());
            set.reserve(4_999).unwrap();
            for (slot, is_insert) in steps {
                if is_insert {
                    prop_assert_eq!(set.insert(slot), model.insert(slot));
                } else {
                    prop_assert_eq!(set.remove(slot), model.remove(&slot));
                }
                prop_assert_eq!(set.iter(5_000).collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            }
        }
    }
}
