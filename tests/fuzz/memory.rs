//! Notices when bytes that were made up have the program ask for memory without measure.
#![allow(unsafe_code, reason = "an allocator that looks at what it is asked for")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, remembering the largest request, and what each thread holds.
pub struct Watched;

thread_local! {
    /// Bytes that this thread took more than it gave back.
    static HELD: Cell<isize> = const { Cell::new(0) };
    /// The most that was.
    static HELD_MAX: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that is ending has no counters any more.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = HELD_MAX.try_with(|max| max.set(max.get().max(held.get())));
    });
}

/// The most bytes that this work held at a time, on this thread.
pub fn held_by<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    HELD_MAX.set(before);
    let done = work();
    (done, (HELD_MAX.get() - before).unsigned_abs())
}

static LARGEST: AtomicUsize = AtomicUsize::new(0);

/// The largest request since this was last asked.
pub fn take_largest() -> usize {
    LARGEST.swap(0, Ordering::Relaxed)
}

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        count(layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        count(size as isize - layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}
