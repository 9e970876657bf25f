//! A set of slots that any number of threads change and walk through at once.

use std::sync::atomic::Ordering;

use crate::memory::arena::NoMemory;
use crate::memory::sync::{Arena, AtomicU32};
use crate::slot::Slot;

/// Slots of one word.
const WORD_SLOTS: u32 = 32;
/// Words of one group.
const GROUP_WORDS: u32 = 64;
/// Slots of one group.
const GROUP_SLOTS: u32 = WORD_SLOTS * GROUP_WORDS;

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

    /// Bytes of memory that `slots` slots take.
    pub fn bytes(&self, slots: usize) -> usize {
        self.words.bytes(slots.div_ceil(WORD_SLOTS as usize)) + self.counts.bytes(slots.div_ceil(GROUP_SLOTS as usize))
    }
}

#[cfg(all(test, not(loom)))]
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

#[cfg(all(test, loom))]
mod models {
    use std::sync::Arc;

    use loom::thread;

    use super::*;
    use crate::memory::sync::explore;

    fn set(slots: &[Slot]) -> Arc<SlotSet> {
        let set = SlotSet::new("model");
        slots.iter().for_each(|slot| assert!(set.insert(*slot)));
        Arc::new(set)
    }

    /// Takes one slot that it finds, as a linker does.
    fn claim(set: &SlotSet) -> Option<Slot> {
        set.iter(SLOTS).find(|slot| set.remove(*slot))
    }

    /// Takes a slot that it has seen, whether it is still there or not.
    fn claim_blindly(set: &SlotSet) -> Option<Slot> {
        set.iter(SLOTS).next().inspect(|slot| {
            set.remove(*slot);
        })
    }

    /// Two that take slots beside one that adds one: each slot goes to one of them, and none is lost.
    fn two_that_claim(claim: fn(&SlotSet) -> Option<Slot>) {
        let set = set(&[0, 40]);
        let claims = [(); 2].map(|()| {
            let set = Arc::clone(&set);
            thread::spawn(move || claim(&set))
        });
        assert!(set.insert(1));
        let mut claimed: Vec<Slot> = claims.into_iter().filter_map(|claim| claim.join().unwrap()).collect();
        claimed.extend(std::iter::from_fn(|| self::claim(&set)));
        claimed.sort_unstable();
        assert_eq!(claimed, [0, 1, 40]);
        assert!(set.iter(SLOTS).next().is_none());
    }

    #[test]
    fn each_slot_is_handed_to_one_linker_and_none_is_lost() {
        explore(2, || two_that_claim(claim));
    }

    #[test]
    #[should_panic(expected = "left")]
    fn a_claim_that_does_not_ask_whether_it_came_first_hands_a_slot_out_twice() {
        explore(2, || two_that_claim(claim_blindly));
    }

    #[test]
    fn a_slot_that_is_there_all_the_time_is_found_while_its_neighbours_come_and_go() {
        explore(3, || {
            let set = set(&[0]);
            let others = {
                let set = Arc::clone(&set);
                thread::spawn(move || {
                    set.insert(1);
                    set.remove(1);
                    set.insert(1);
                })
            };
            assert!(set.iter(SLOTS).any(|slot| slot == 0));
            others.join().unwrap();
            assert_eq!(set.iter(SLOTS).collect::<Vec<_>>(), [0, 1]);
        });
    }

    #[test]
    fn of_two_that_add_or_remove_a_slot_one_does() {
        explore(3, || {
            let set = set(&[1]);
            let other = {
                let set = Arc::clone(&set);
                thread::spawn(move || (set.insert(0), set.remove(1)))
            };
            let (added, removed) = (set.insert(0), set.remove(1));
            let (other_added, other_removed) = other.join().unwrap();
            assert!(added ^ other_added && removed ^ other_removed);
            assert_eq!(set.iter(SLOTS).collect::<Vec<_>>(), [0]);
        });
    }

    /// One more than the highest slot of a model: they lie in two words of one group.
    const SLOTS: u32 = 64;
}
