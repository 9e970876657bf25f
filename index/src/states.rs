//! What has become of each slot: stored, in the graph, buried; and the counts of each.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};

use crate::arena::{Arena, NoMemory};
use crate::params::Slot;

/// One byte of flags a slot. Flags are only ever added; the lock alone comes and goes.
pub(crate) struct States {
    flags: Arena<AtomicU8>,
    slots: AtomicU32,
    live: AtomicUsize,
    buried: AtomicUsize,
    unlinked: AtomicUsize,
    linkers: AtomicU32,
    /// Every slot below has been handed to a linker, or needs none.
    claimed_to: AtomicU32,
    /// Every slot below is in the graph, or will never be.
    linked_to: AtomicU32,
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
            buried: AtomicUsize::new(0),
            unlinked: AtomicUsize::new(0),
            linkers: AtomicU32::new(0),
            claimed_to: AtomicU32::new(0),
            linked_to: AtomicU32::new(0),
        }
    }

    /// Makes room for the flags of a slot.
    pub fn reserve(&self, slot: Slot) -> Result<(), NoMemory> {
        self.flags.reserve(slot)
    }

    /// A slot at or above [`Self::slots`] is stored from now on: live, and not in the graph.
    pub fn publish(&self, slot: Slot) {
        self.live.fetch_add(1, Ordering::Relaxed);
        self.unlinked.fetch_add(1, Ordering::Relaxed);
        self.flags(slot).fetch_or(STORED, Ordering::Release);
        self.slots.store(slot + 1, Ordering::Release);
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

    /// Whether any slot was ever buried: a walk need not ask for each where none was.
    pub fn any_buried(&self) -> bool {
        self.buried.load(Ordering::Acquire) > 0
    }

    /// Number of live slots that are not in the graph.
    pub fn unlinked(&self) -> usize {
        self.unlinked.load(Ordering::Acquire)
    }

    /// Whether a slot was stored, buried or not.
    pub fn is_stored(&self, slot: Slot) -> bool {
        self.load(slot) & STORED != 0
    }

    /// Whether a slot is stored and not buried.
    #[inline]
    pub fn is_live(&self, slot: Slot) -> bool {
        self.load(slot) & (STORED | BURIED) == STORED
    }

    /// Whether a slot is in the graph with all its links.
    pub fn is_linked(&self, slot: Slot) -> bool {
        self.load(slot) & LINKED != 0
    }

    /// Live slots that are not in the graph, ascending.
    pub fn tail(&self) -> impl Iterator<Item = Slot> + '_ {
        (self.linked_to.load(Ordering::Acquire)..self.slots()).filter(|slot| self.needs_linking(*slot))
    }

    /// Live slots, ascending.
    pub fn live_slots(&self) -> impl Iterator<Item = Slot> + '_ {
        (0..self.slots()).filter(|slot| self.is_live(*slot))
    }

    /// Gives each live slot that is not in the graph to one caller.
    pub fn claim(&self) -> Option<Slot> {
        loop {
            let slot = self.claimed_to.load(Ordering::Acquire);
            if slot >= self.slots() {
                return None;
            }
            let won = self.claimed_to.compare_exchange(slot, slot + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok();
            if won && self.load(slot) & (STORED | LINKING | BURIED) == STORED {
                return Some(slot);
            }
        }
    }

    /// Whether the caller is the one to link this slot: it is live, and nobody began to.
    pub fn begin_linking(&self, slot: Slot) -> bool {
        let is_first = slot < self.slots()
            && self.is_live(slot)
            && self.flags(slot).fetch_or(LINKING, Ordering::AcqRel) & LINKING == 0;
        self.linkers.fetch_add(u32::from(is_first), Ordering::Relaxed);
        is_first
    }

    /// Number of slots that are being linked now.
    pub fn linkers(&self) -> u32 {
        self.linkers.load(Ordering::Relaxed)
    }

    /// The slot is in the graph with all its links.
    pub fn finish_linking(&self, slot: Slot) {
        self.linkers.fetch_sub(1, Ordering::Relaxed);
        let before = self.flags(slot).fetch_or(LINKED, Ordering::AcqRel);
        if before & (LINKED | BURIED) == 0 {
            self.unlinked.fetch_sub(1, Ordering::Release);
        }
        self.advance();
    }

    /// Takes a slot out of the live ones for ever. Whether it was one.
    pub fn bury(&self, slot: Slot) -> bool {
        if slot >= self.slots() || !self.is_live(slot) {
            return false;
        }
        let before = self.flags(slot).fetch_or(BURIED, Ordering::AcqRel);
        if before & BURIED != 0 {
            return false;
        }
        self.buried.fetch_add(1, Ordering::Release);
        self.live.fetch_sub(1, Ordering::Release);
        if before & LINKED == 0 {
            self.unlinked.fetch_sub(1, Ordering::Release);
        }
        self.advance();
        true
    }

    /// Puts back what was known of a slot, in an index that nobody else uses yet.
    pub fn restore(&self, slot: Slot, is_linked: bool, is_buried: bool) {
        let linked = if is_linked { LINKING | LINKED } else { 0 };
        let buried = if is_buried { BURIED } else { 0 };
        self.flags(slot).store(STORED | linked | buried, Ordering::Release);
        self.live.fetch_add(usize::from(!is_buried), Ordering::Relaxed);
        self.buried.fetch_add(usize::from(is_buried), Ordering::Relaxed);
        self.unlinked.fetch_add(usize::from(!is_buried && !is_linked), Ordering::Relaxed);
    }

    /// Every slot below `slots` has been restored, or was skipped.
    pub fn restored(&self, slots: u32) {
        self.slots.store(slots, Ordering::Release);
        self.advance();
    }

    /// Waits for the lock of a stored slot. Nobody holds two, so nobody waits for ever.
    pub fn lock(&self, slot: Slot) -> Locked<'_> {
        let flags = self.flags(slot);
        let mut spins = 0;
        while flags.fetch_or(LOCK, Ordering::Acquire) & LOCK != 0 {
            spins += 1;
            if spins % SPINS_BEFORE_YIELD == 0 {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        Locked(flags)
    }

    /// Bytes of memory that so many slots take.
    pub fn bytes(&self, slots: usize) -> usize {
        self.flags.bytes(slots)
    }

    fn needs_linking(&self, slot: Slot) -> bool {
        self.load(slot) & (STORED | LINKED | BURIED) == STORED
    }

    /// Moves `linked_to` over what is done with.
    fn advance(&self) {
        loop {
            let slot = self.linked_to.load(Ordering::Acquire);
            if slot >= self.slots() || self.needs_linking(slot) {
                return;
            }
            let _ = self.linked_to.compare_exchange(slot, slot + 1, Ordering::AcqRel, Ordering::Relaxed);
        }
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

const STORED: u8 = 1;
const LINKING: u8 = 2;
const LINKED: u8 = 4;
const BURIED: u8 = 8;
const LOCK: u8 = 128;
/// A holder that was put off its core comes back sooner when the waiting thread makes room.
const SPINS_BEFORE_YIELD: u32 = 128;
