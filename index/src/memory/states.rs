//! What has become of each slot: stored, in the graph, deleted; and the counts of each.

use std::sync::atomic::Ordering;

use crate::memory::arena::NoMemory;
use crate::memory::slot_set::SlotSet;
use crate::memory::sync::{Arena, AtomicBool, AtomicU8, AtomicU32, AtomicUsize, spin_loop, yield_now};
use crate::slot::Slot;

/// The slot holds a vector.
const STORED: u8 = 1;
/// A thread has begun to link it.
const LINKING: u8 = 2;
/// It is in the graph with all its links.
const LINKED: u8 = 4;
/// It is in no result any more.
const DELETED: u8 = 8;
/// It is to leave the graph in the round that is under way.
const LEAVING: u8 = 16;
/// It has left the graph, and may still be read.
const RETIRED: u8 = 32;
/// A thread holds its lock.
const LOCK: u8 = 128;
/// A holder that was put off its core comes back sooner when the waiting thread makes room.
const SPINS_BEFORE_YIELD: u32 = 128;

/// One byte of flags a slot. Until the slot is vacated flags are only added, but for the lock, which comes and goes.
///
/// ```text
/// vacant -> stored -> linking -> linked -> deleted -> leaving -> retired -> vacant
///              \-> deleted ----------------------------------------/
/// ```
pub(crate) struct States {
    flags: Arena<AtomicU8>,
    slots: AtomicU32,
    live: AtomicUsize,
    /// Deleted, and not vacant yet.
    deleted_or_retired: AtomicUsize,
    /// Deleted, and not retired yet.
    deleted: AtomicUsize,
    /// Whether any slot was vacated.
    is_churned: AtomicBool,
    unlinked: AtomicUsize,
    /// Live slots that are not in the graph.
    tail: SlotSet,
    /// Those of them that no linker was given.
    unclaimed: SlotSet,
}

/// Holds the lock of one slot.
pub(crate) struct Locked<'a>(&'a AtomicU8);

impl States {
    /// No slots.
    pub fn new() -> Self {
        Self {
            flags: Arena::new("states", 1),
            slots: AtomicU32::new(0),
            live: AtomicUsize::new(0),
            deleted_or_retired: AtomicUsize::new(0),
            deleted: AtomicUsize::new(0),
            is_churned: AtomicBool::new(false),
            unlinked: AtomicUsize::new(0),
            tail: SlotSet::new("tail"),
            unclaimed: SlotSet::new("unclaimed"),
        }
    }

    /// Makes room for the flags of a slot.
    pub fn reserve(&self, slot: Slot) -> Result<(), NoMemory> {
        self.flags.reserve(slot)?;
        self.tail.reserve(slot)?;
        self.unclaimed.reserve(slot)
    }

    /// Whether a slot below [`Self::slots`] may be stored: it never was, or it is vacant again.
    pub fn is_vacant(&self, slot: Slot) -> bool {
        self.load(slot) & STORED == 0
    }

    /// A vacant slot is stored from now on: live, and not in the graph.
    pub fn publish(&self, slot: Slot) {
        self.live.fetch_add(1, Ordering::Relaxed);
        self.unlinked.fetch_add(1, Ordering::Relaxed);
        self.flags(slot).fetch_or(STORED, Ordering::Release);
        self.tail.insert(slot);
        self.slots.fetch_max(slot + 1, Ordering::AcqRel);
        self.unclaimed.insert(slot);
    }

    /// One more than the highest slot stored.
    #[inline]
    pub fn slots(&self) -> u32 {
        self.slots.load(Ordering::Acquire)
    }

    /// Number of live slots.
    pub fn live(&self) -> usize {
        self.live.load(Ordering::Acquire)
    }

    /// Whether there are deleted slots that a walk may meet.
    pub fn any_deleted(&self) -> bool {
        self.deleted_or_retired.load(Ordering::Acquire) > 0
    }

    /// Whether any slot was vacated.
    pub fn is_churned(&self) -> bool {
        self.is_churned.load(Ordering::Relaxed)
    }

    /// Number of live slots that are not in the graph.
    pub fn unlinked(&self) -> usize {
        self.unlinked.load(Ordering::Acquire)
    }

    /// Whether a slot was stored, deleted or not.
    pub fn is_stored(&self, slot: Slot) -> bool {
        self.load(slot) & STORED != 0
    }

    /// Whether a slot is stored and not deleted.
    #[inline]
    pub fn is_live(&self, slot: Slot) -> bool {
        self.load(slot) & (STORED | DELETED) == STORED
    }

    /// Whether a slot is to leave the graph: it is in the round of consolidation that is under way.
    #[inline]
    pub fn is_leaving(&self, slot: Slot) -> bool {
        self.load(slot) & LEAVING != 0
    }

    /// Whether a slot is to leave the graph, or has left it.
    pub fn is_going(&self, slot: Slot) -> bool {
        self.load(slot) & (LEAVING | RETIRED) != 0
    }

    /// Whether a slot is stored and keeps its vector for a caller that has been reading since before this was asked.
    pub fn is_readable(&self, slot: Slot) -> bool {
        self.load(slot) & (STORED | RETIRED) == STORED
    }

    /// Whether a slot has left the graph, and waits until nobody reads it any more.
    pub fn is_retired(&self, slot: Slot) -> bool {
        self.load(slot) & RETIRED != 0
    }

    /// Whether a slot is deleted, and not retired.
    pub fn is_deleted(&self, slot: Slot) -> bool {
        self.load(slot) & (DELETED | RETIRED) == DELETED
    }

    /// Number of slots that are deleted, and not retired.
    pub fn deleted(&self) -> usize {
        self.deleted.load(Ordering::Acquire)
    }

    /// Whether a slot is in the graph with all its links.
    pub fn is_linked(&self, slot: Slot) -> bool {
        self.load(slot) & LINKED != 0
    }

    /// Live slots that are not in the graph, ascending.
    pub fn tail(&self) -> impl Iterator<Item = Slot> + '_ {
        // They are counted before they are there, and until they are linked.
        let slots = if self.unlinked() == 0 { 0 } else { self.slots() };
        self.tail.iter(slots).filter(|slot| self.needs_linking(*slot))
    }

    /// Live slots, ascending.
    pub fn live_slots(&self) -> impl Iterator<Item = Slot> + '_ {
        (0..self.slots()).filter(|slot| self.is_live(*slot))
    }

    /// Gives each live slot that is not in the graph to one caller.
    pub fn claim(&self) -> Option<Slot> {
        self.unclaimed
            .iter(self.slots())
            .find(|slot| self.unclaimed.remove(*slot) && self.load(*slot) & (STORED | LINKING | DELETED) == STORED)
    }

    /// Whether the caller is the one to link this slot: it is live, and nobody began to.
    pub fn begin_linking(&self, slot: Slot) -> bool {
        let begin = |flags| (flags & (STORED | DELETED | LINKING) == STORED).then_some(flags | LINKING);
        slot < self.slots() && self.flags(slot).fetch_update(Ordering::AcqRel, Ordering::Acquire, begin).is_ok()
    }

    /// The slot is in the graph with all its links.
    pub fn finish_linking(&self, slot: Slot) {
        let before = self.flags(slot).fetch_or(LINKED, Ordering::AcqRel);
        if before & (LINKED | DELETED) == 0 {
            self.unlinked.fetch_sub(1, Ordering::Release);
        }
        self.tail.remove(slot);
    }

    /// Takes a slot out of the live ones. Whether it was one.
    pub fn mark_deleted(&self, slot: Slot) -> bool {
        if slot >= self.slots() || !self.is_live(slot) {
            return false;
        }
        let mark = |flags| (flags & (STORED | DELETED) == STORED).then_some(flags | DELETED);
        let Ok(before) = self.flags(slot).fetch_update(Ordering::AcqRel, Ordering::Acquire, mark) else { return false };
        self.deleted_or_retired.fetch_add(1, Ordering::Release);
        self.deleted.fetch_add(1, Ordering::Release);
        self.live.fetch_sub(1, Ordering::Release);
        if before & LINKED == 0 {
            self.unlinked.fetch_sub(1, Ordering::Release);
        }
        self.tail.remove(slot);
        self.unclaimed.remove(slot);
        true
    }

    /// A deleted node is to leave the graph. Nobody links meanwhile.
    pub fn leave(&self, slot: Slot) {
        self.flags(slot).fetch_or(LEAVING, Ordering::AcqRel);
    }

    /// A deleted slot is out of the graph, and may be vacated once nobody reads it any more. Nobody links meanwhile.
    pub fn retire(&self, slot: Slot) {
        self.flags(slot).store(STORED | DELETED | RETIRED, Ordering::Release);
        self.deleted.fetch_sub(1, Ordering::Release);
    }

    /// A retired slot that nobody reads any more may be stored again.
    pub fn vacate(&self, slot: Slot) {
        self.is_churned.store(true, Ordering::Relaxed);
        self.flags(slot).store(0, Ordering::Release);
        self.deleted_or_retired.fetch_sub(1, Ordering::Release);
    }

    /// Puts back what was known of a slot, in an index that nobody else uses yet.
    pub fn restore(&self, slot: Slot, is_linked: bool, is_deleted: bool) {
        let linked = if is_linked { LINKING | LINKED } else { 0 };
        let deleted = if is_deleted { DELETED } else { 0 };
        self.flags(slot).store(STORED | linked | deleted, Ordering::Release);
        self.live.fetch_add(usize::from(!is_deleted), Ordering::Relaxed);
        self.deleted_or_retired.fetch_add(usize::from(is_deleted), Ordering::Relaxed);
        self.deleted.fetch_add(usize::from(is_deleted), Ordering::Relaxed);
        if !is_deleted && !is_linked {
            self.unlinked.fetch_add(1, Ordering::Relaxed);
            self.tail.insert(slot);
            self.unclaimed.insert(slot);
        }
    }

    /// Every slot below `slots` has been restored, or was skipped.
    pub fn restored(&self, slots: u32) {
        self.slots.store(slots, Ordering::Release);
    }

    /// Waits for the lock of a stored slot. Nobody holds two, so nobody waits for ever.
    pub fn lock(&self, slot: Slot) -> Locked<'_> {
        let flags = self.flags(slot);
        let mut spins = 0;
        while flags.fetch_or(LOCK, Ordering::Acquire) & LOCK != 0 {
            spins += 1;
            if spins % SPINS_BEFORE_YIELD == 0 {
                yield_now();
            } else {
                spin_loop();
            }
        }
        Locked(flags)
    }

    /// Bytes of memory that `slots` slots take.
    pub fn bytes(&self, slots: usize) -> usize {
        self.flags.bytes(slots) + self.tail.bytes(slots) + self.unclaimed.bytes(slots)
    }

    fn needs_linking(&self, slot: Slot) -> bool {
        self.load(slot) & (STORED | LINKED | DELETED) == STORED
    }

    #[inline]
    fn load(&self, slot: Slot) -> u8 {
        self.flags.get(slot).first().map_or(0, |flags| flags.load(Ordering::Acquire))
    }

    #[inline]
    fn flags(&self, slot: Slot) -> &AtomicU8 {
        &self.flags.get(slot)[0]
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.0.fetch_and(!LOCK, Ordering::Release);
    }
}

#[cfg(all(test, loom))]
mod models {
    use std::sync::Arc;

    use loom::cell::UnsafeCell;
    use loom::thread;

    use super::*;
    use crate::memory::sync::explore;

    fn states() -> Arc<States> {
        let states = States::new();
        states.reserve(1).unwrap();
        Arc::new(states)
    }

    /// Links what it is given, as a linker does; the slots that it linked.
    fn link_claimed(states: &States) -> Vec<Slot> {
        let claimed = std::iter::from_fn(|| states.claim());
        let begun = claimed.filter(|slot| states.begin_linking(*slot));
        begun.inspect(|slot| states.finish_linking(*slot)).collect()
    }

    /// What the counts say is what the flags say, once nobody changes them.
    fn check_counts(states: &States) {
        let slots = || 0..states.slots();
        assert_eq!(states.live(), slots().filter(|slot| states.is_live(*slot)).count(), "live");
        assert_eq!(states.deleted(), slots().filter(|slot| states.is_deleted(*slot)).count(), "deleted");
        let waiting: Vec<Slot> = slots().filter(|slot| states.needs_linking(*slot)).collect();
        assert_eq!(states.unlinked(), waiting.len(), "unlinked");
        assert_eq!(states.tail().collect::<Vec<_>>(), waiting, "the tail");
    }

    #[test]
    fn what_is_stored_beside_two_linkers_is_linked_once() {
        explore(2, || {
            let states = states();
            states.publish(0);
            let linkers = [(); 2].map(|()| {
                let states = Arc::clone(&states);
                thread::spawn(move || link_claimed(&states))
            });
            states.publish(1);
            let mut linked: Vec<Slot> = linkers.into_iter().flat_map(|linker| linker.join().unwrap()).collect();
            // What came too late for both is still there to be claimed.
            linked.extend(link_claimed(&states));
            linked.sort_unstable();
            assert_eq!(linked, [0, 1]);
            check_counts(&states);
        });
    }

    #[test]
    fn a_slot_that_is_deleted_while_it_is_linked_is_counted_once() {
        explore(3, || {
            let states = states();
            states.publish(0);
            states.publish(1);
            let linker = {
                let states = Arc::clone(&states);
                thread::spawn(move || link_claimed(&states))
            };
            assert!(states.mark_deleted(0));
            assert!(!states.mark_deleted(0), "it is deleted already");
            let linked = linker.join().unwrap();
            assert!(linked == [0, 1] || linked == [1], "{linked:?}");
            check_counts(&states);
            assert_eq!((states.live(), states.unlinked(), states.deleted()), (1, 0, 1));
        });
    }

    #[test]
    fn of_two_that_delete_a_slot_one_does() {
        explore(3, || {
            let states = states();
            states.publish(0);
            let other = {
                let states = Arc::clone(&states);
                thread::spawn(move || states.mark_deleted(0))
            };
            let ours = states.mark_deleted(0);
            assert!(ours ^ other.join().unwrap());
            check_counts(&states);
        });
    }

    #[test]
    fn a_search_beside_a_linker_finds_what_is_not_in_the_graph() {
        explore(3, || {
            let states = states();
            states.publish(0);
            states.publish(1);
            let linker = {
                let states = Arc::clone(&states);
                thread::spawn(move || {
                    assert!(states.begin_linking(0));
                    states.finish_linking(0);
                })
            };
            // The tail first, then the graph: whatever leaves the tail meanwhile is in the graph by then.
            let tail: Vec<Slot> = states.tail().collect();
            assert!(tail.contains(&1), "nobody links it");
            assert!(tail.contains(&0) || states.is_linked(0));
            linker.join().unwrap();
            check_counts(&states);
        });
    }

    /// Two threads change what the lock of a slot guards; loom fails where they do at once.
    fn two_that_lock(is_locked: bool) {
        let guarded = Arc::new((States::new(), UnsafeCell::new(())));
        guarded.0.publish(0);
        let change = move |guarded: &(States, UnsafeCell<()>)| {
            let _locked = is_locked.then(|| guarded.0.lock(0));
            guarded.1.with_mut(|_| ());
        };
        let other = {
            let guarded = Arc::clone(&guarded);
            thread::spawn(move || change(&guarded))
        };
        change(&guarded);
        other.join().unwrap();
        assert!(guarded.0.is_live(0), "the lock changes nothing else");
    }

    #[test]
    fn one_thread_at_a_time_holds_the_lock_of_a_slot() {
        explore(3, || two_that_lock(true));
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn without_the_lock_two_threads_meet() {
        explore(3, || two_that_lock(false));
    }
}
