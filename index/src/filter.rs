//! Which slots may be hits of a search.

use crate::slot::Slot;

/// Slots of one word of a [`SlotBits`].
const WORD_SLOTS: u32 = u64::BITS;

/// A set of slots that a search is limited to. It may have slots that are not stored or not live any more: those are no
/// hits in any case.
///
/// The three questions must agree: a slot that [`iter`](Self::iter) gives is one that [`contains`](Self::contains) holds
/// for, and the other way about, while a search goes on.
pub trait SlotFilter: Sync {
    /// Whether a slot is in the set. A walk asks this of every node that it would keep, from the searching thread, and
    /// sometimes twice of one: it should be quick.
    fn contains(&self, slot: Slot) -> bool;

    /// About how many slots are in the set. Searches choose by it between a walk and looking at every member; a wrong one
    /// costs time and never a hit.
    fn estimate(&self) -> usize;

    /// Every slot of the set once, ascending.
    fn iter(&self) -> Box<dyn Iterator<Item = Slot> + '_>;
}

/// A set of slots with one bit for each up to the highest.
///
/// ```
/// use vecino_index::{SlotBits, SlotFilter};
///
/// let even: SlotBits = (0..100).step_by(2).collect();
/// assert!(even.contains(42) && !even.contains(43) && !even.contains(1_000));
/// assert_eq!((even.estimate(), even.iter().last()), (50, Some(98)));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotBits {
    words: Vec<u64>,
    count: usize,
}

impl SlotBits {
    /// Adds a slot. Whether it was not in the set before.
    pub fn insert(&mut self, slot: Slot) -> bool {
        let (word, bit) = ((slot / WORD_SLOTS) as usize, 1 << (slot % WORD_SLOTS));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.count += usize::from(is_new);
        is_new
    }
}

impl FromIterator<Slot> for SlotBits {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        let mut set = Self::default();
        for slot in slots {
            set.insert(slot);
        }
        set
    }
}

impl SlotFilter for SlotBits {
    fn contains(&self, slot: Slot) -> bool {
        let word = self.words.get((slot / WORD_SLOTS) as usize);
        word.is_some_and(|word| word >> (slot % WORD_SLOTS) & 1 != 0)
    }

    fn estimate(&self) -> usize {
        self.count
    }

    fn iter(&self) -> Box<dyn Iterator<Item = Slot> + '_> {
        Box::new((0..).zip(&self.words).flat_map(|(at, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros();
                (bit < WORD_SLOTS).then(|| {
                    rest &= rest - 1;
                    at * WORD_SLOTS + bit
                })
            })
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_of_bits_is_the_set_of_what_was_put_in(slots in prop::collection::vec(0u32..500, 0..60)) {
            let (bits, model): (SlotBits, BTreeSet<Slot>) =
                (slots.iter().copied().collect(), slots.iter().copied().collect());
            prop_assert_eq!(bits.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(bits.estimate(), model.len());
            for slot in 0..700 {
                prop_assert_eq!(bits.contains(slot), model.contains(&slot));
            }
        }
    }
}
