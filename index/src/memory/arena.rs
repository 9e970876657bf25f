//! Arenas: memory that grows and never moves, so that readers hold plain references into it while a writer adds to it.
//!
//! An arena holds a fixed number of atoms for each slot. It is made of chunks, each twice as large as the one before,
//! so two dozen of them cover every slot and finding one takes no search. Large chunks are anonymous mappings, which
//! cost memory only where they are touched; so an index of ten points costs kilobytes, not the size of a chunk.
//!
//! Atoms are atomic integers, and zero at first: concurrent use is a matter of orderings, never of undefined behaviour.
#![allow(unsafe_code, reason = "arenas: references into mapped memory")]

use std::io;
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use memmap2::{MmapMut, MmapOptions};

use crate::slot::SLOT_MAX;

/// Slots of the first chunk.
const CHUNK_SLOTS: usize = 128;
/// Chunks that cover every slot.
const CHUNKS: usize = (u32::BITS - CHUNK_SLOTS.trailing_zeros()) as usize;
/// Bytes of a cache line.
const LINE_BYTES: usize = 64;
/// Chunks up to this size come from the heap: a mapping is whole pages, and the number of mappings of a process is limited.
const HEAP_BYTES_MAX: usize = 16 * 1024;
/// Chunks from this size on ask for huge pages: a walk jumps about, and small pages would cost it a second miss.
const HUGE_BYTES_MIN: usize = 2 * 1024 * 1024;

/// What an arena is made of.
///
/// # Safety
/// All bits zero is a valid value, the type may be changed through shared references, and dropping it does nothing.
pub(crate) unsafe trait Atom: Sync + 'static {}
// SAFETY: an atomic integer is all of that.
unsafe impl Atom for AtomicU8 {}
// SAFETY: as above.
unsafe impl Atom for AtomicU32 {}

/// `width` atoms for each slot, at addresses that never change.
pub(crate) struct Arena<T: Atom> {
    name: &'static str,
    width: usize,
    chunks: [AtomicPtr<T>; CHUNKS],
    owned: Mutex<Vec<Memory>>,
}

/// What keeps a chunk's memory, for its destructor alone.
enum Memory {
    Heap { _lines: Vec<Line> },
    Mapped { _map: MmapMut },
}

/// One cache line, so that small chunks are aligned like mapped ones.
#[derive(Clone)]
#[repr(align(64))]
struct Line {
    _bytes: [u8; LINE_BYTES],
}

/// An arena could not grow.
#[derive(Debug)]
pub(crate) struct NoMemory {
    pub arena: &'static str,
    pub bytes: usize,
    pub source: io::Error,
}

impl<T: Atom> Arena<T> {
    /// An arena without memory.
    pub fn new(name: &'static str, width: usize) -> Self {
        Self { name, width, chunks: Default::default(), owned: Mutex::default() }
    }

    /// Makes sure that every slot up to this one has memory.
    pub fn reserve(&self, slot: u32) -> Result<(), NoMemory> {
        let (last, _) = place(slot);
        if !self.chunks[last].load(Ordering::Acquire).is_null() {
            return Ok(());
        }
        let mut owned = self.owned.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in owned.len()..=last {
            let bytes = (CHUNK_SLOTS << chunk) * self.width * size_of::<T>();
            let (memory, start) = allocate(bytes).map_err(|source| NoMemory { arena: self.name, bytes, source })?;
            owned.push(memory);
            self.chunks[chunk].store(start.cast(), Ordering::Release);
        }
        Ok(())
    }

    /// The atoms of a slot; none where no memory was reserved for it.
    #[inline(always)]
    pub fn get(&self, slot: u32) -> &[T] {
        let (chunk, offset) = place(slot);
        let start = self.chunks[chunk].load(Ordering::Acquire);
        if start.is_null() {
            return &[];
        }
        // SAFETY: a chunk that is not null holds `width` atoms for each of its slots, `offset` is one of them, zeroed
        // memory is valid atoms, and chunks live as long as the arena.
        unsafe { std::slice::from_raw_parts(start.add(offset * self.width), self.width) }
    }

    /// Bytes that the first `slots` slots take.
    pub fn bytes(&self, slots: usize) -> usize {
        slots * self.width * size_of::<T>()
    }
}

/// The chunk of a slot, and its place there: chunk `c` holds the `128 << c` slots from `(128 << c) - 128` on.
#[inline(always)]
fn place(slot: u32) -> (usize, usize) {
    debug_assert!(slot <= SLOT_MAX, "slot {slot}");
    let shifted = slot.wrapping_add(CHUNK_SLOTS as u32);
    let chunk = (u32::BITS - 1 - CHUNK_SLOTS.trailing_zeros()) - shifted.leading_zeros();
    (chunk as usize, (shifted ^ ((CHUNK_SLOTS as u32) << chunk)) as usize)
}

fn allocate(bytes: usize) -> io::Result<(Memory, *mut u8)> {
    if bytes <= HEAP_BYTES_MAX {
        let mut lines = vec![Line { _bytes: [0; LINE_BYTES] }; bytes.div_ceil(LINE_BYTES)];
        let start = lines.as_mut_ptr().cast();
        return Ok((Memory::Heap { _lines: lines }, start));
    }
    let mut map = MmapOptions::new().len(bytes).no_reserve_swap().map_anon()?;
    #[cfg(target_os = "linux")]
    if bytes >= HUGE_BYTES_MIN {
        // A kernel without huge pages refuses, and small ones do as well, only slower.
        let _ = map.advise(memmap2::Advice::HugePage);
    }
    let start = map.as_mut_ptr();
    Ok((Memory::Mapped { _map: map }, start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_every_slot_once() {
        let mut expected = (0, 0);
        for slot in 0..100_000 {
            assert_eq!(place(slot), expected, "slot {slot}");
            expected.1 += 1;
            if expected.1 == CHUNK_SLOTS << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
        let (chunk, offset) = place(SLOT_MAX);
        assert!(chunk < CHUNKS && offset < CHUNK_SLOTS << chunk, "{chunk} {offset}");
    }

    #[test]
    fn addresses_stay_while_the_arena_grows() {
        let arena = Arena::<AtomicU32>::new("test", 16);
        assert!(arena.get(0).is_empty());
        let mut seen = Vec::new();
        for slot in (0..200_000).step_by(997) {
            arena.reserve(slot).unwrap();
            assert!(arena.get(slot).iter().all(|atom| atom.load(Ordering::Relaxed) == 0));
            assert_eq!(arena.get(slot).as_ptr().addr() % LINE_BYTES, 0);
            arena.get(slot)[3].store(slot, Ordering::Relaxed);
            seen.push((slot, arena.get(slot).as_ptr()));
            for (slot, at) in &seen {
                assert_eq!(arena.get(*slot).as_ptr(), *at);
                assert_eq!(arena.get(*slot)[3].load(Ordering::Relaxed), *slot);
            }
        }
    }
}
