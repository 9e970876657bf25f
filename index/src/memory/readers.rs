//! How many threads read now, so that a slot is given to another vector only when no thread can still be looking at the old one.
//!
//! A reader counts itself into the phase that is under way. What has been taken out of the graph is set aside; when the
//! phase turns, readers that come see nothing of it, and once those of the phase before have left, nobody does. A reader
//! neither waits nor takes a lock; the phase turns only when that is possible at once (after Hart, McKenney, Brown and
//! Walpole 2007, with the counters of sleepable RCU).

use std::sync::atomic::Ordering;

use crate::memory::sync::{AtomicU32, AtomicU64};

/// Fewer in a model, where each load is a step.
const STRIPES: usize = if cfg!(loom) { 2 } else { 16 };

/// Counts of readers by phase, spread over cache lines so that searches on several cores do not share one.
pub(crate) struct Readers {
    phase: AtomicU64,
    stripes: [Stripe; STRIPES],
}

#[derive(Default)]
#[repr(align(128))]
struct Stripe {
    active: [AtomicU32; 2],
}

/// While it lives, no slot that is in use comes to hold another vector: see [`Index::reading`](crate::Index::reading).
#[must_use = "what is read is protected only while this lives"]
pub struct Reading<'a> {
    active: &'a AtomicU32,
}

impl Readers {
    /// Nobody.
    pub fn new() -> Self {
        Self { phase: AtomicU64::new(0), stripes: Default::default() }
    }

    /// Counts a reader in, until what is returned is dropped.
    #[inline]
    pub fn enter(&self) -> Reading<'_> {
        STRIPE.with(|stripe| self.enter_at(*stripe))
    }

    /// Counts a reader in on one of the stripes.
    #[inline]
    fn enter_at(&self, stripe: usize) -> Reading<'_> {
        let stripe = &self.stripes[stripe];
        loop {
            let phase = self.phase.load(Ordering::SeqCst);
            let active = &stripe.active[(phase & 1) as usize];
            active.fetch_add(1, Ordering::SeqCst);
            // In one total order of all this, either the phase has not turned and the thread that turns it sees the count, or it
            // has turned and this reader belongs to the next.
            if self.phase.load(Ordering::SeqCst) == phase {
                return Reading { active };
            }
            active.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Begins the next phase, if nobody is left of the one before this. One thread at a time. When it has done so twice
    /// after something was taken out of everybody's sight, nobody reads it any more.
    pub fn turn(&self) -> bool {
        let phase = self.phase.load(Ordering::SeqCst);
        let old = (phase.wrapping_add(1) & 1) as usize;
        if self.stripes.iter().any(|stripe| stripe.active[old].load(Ordering::SeqCst) > 0) {
            return false;
        }
        self.phase.store(phase.wrapping_add(1), Ordering::SeqCst);
        true
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.active.fetch_sub(1, Ordering::SeqCst);
    }
}

thread_local! {
    static STRIPE: usize = NEXT_STRIPE.fetch_add(1, Ordering::Relaxed) % STRIPES;
}

static NEXT_STRIPE: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize};

    use super::*;

    #[test]
    fn two_turns_pass_only_after_those_who_were_reading_have_left() {
        let readers = Readers::new();
        assert!(readers.turn() && readers.turn() && readers.turn());
        let first = readers.enter();
        assert!(readers.turn(), "nobody is left of the phase before");
        let second = readers.enter();
        assert!(!readers.turn() && !readers.turn(), "the first reader is there");
        drop(first);
        assert!(readers.turn(), "only the second is there");
        assert!(!readers.turn());
        drop(second);
        assert!(readers.turn());
    }

    /// A writer overwrites a cell only two turns after it was put out of sight; a reader that sees it finds it whole.
    #[test]
    fn nothing_is_overwritten_under_a_reader() {
        let rounds = if cfg!(miri) { 50 } else { 20_000 };
        let readers = Readers::new();
        let cells = [AtomicU64::new(0), AtomicU64::new(0)];
        let (shown, done) = (AtomicUsize::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Acquire) {
                        let _reading = readers.enter();
                        let cell = &cells[shown.load(Ordering::Acquire)];
                        let before = cell.load(Ordering::Relaxed);
                        std::hint::spin_loop();
                        assert_eq!(cell.load(Ordering::Relaxed), before);
                    }
                });
            }
            for round in 1..rounds {
                let hidden = 1 - shown.load(Ordering::Relaxed);
                cells[hidden].store(round, Ordering::Relaxed);
                shown.store(hidden, Ordering::Release);
                for _ in 0..2 {
                    while !readers.turn() {
                        std::thread::yield_now();
                    }
                }
            }
            done.store(true, Ordering::Release);
        });
    }
}

#[cfg(all(test, loom))]
mod models {
    use std::sync::Arc;

    use loom::cell::UnsafeCell;
    use loom::thread;

    use super::*;
    use crate::memory::sync::{AtomicUsize, explore, yield_now};

    /// What lies under two slots. Loom fails where one thread looks at a slot while another changes it.
    struct World {
        readers: Readers,
        /// The slot that searches find.
        shown: AtomicUsize,
        slots: [UnsafeCell<()>; 2],
    }

    impl World {
        fn new() -> Arc<Self> {
            let slots = [UnsafeCell::new(()), UnsafeCell::new(())];
            Arc::new(Self { readers: Readers::new(), shown: AtomicUsize::new(0), slots })
        }

        fn search(&self, stripe: usize) {
            let _reading = self.readers.enter_at(stripe);
            let found = self.shown.load(Ordering::Acquire);
            self.slots[found].with(|_| ());
        }

        /// Takes slot 0 out of sight, and gives it away after so many turns.
        fn give_away(&self, turns: usize) {
            self.shown.store(1, Ordering::Release);
            for _ in 0..turns {
                while !self.readers.turn() {
                    yield_now();
                }
            }
            self.slots[0].with_mut(|_| ());
        }
    }

    /// Two readers, each of which may look twice, beside one that gives a slot away.
    fn readers_beside_one_that_gives_away(stripes: [usize; 2], turns: usize) {
        let world = World::new();
        let search = |stripe: usize| {
            let world = Arc::clone(&world);
            thread::spawn(move || world.search(stripe))
        };
        let searches = stripes.map(search);
        world.give_away(turns);
        for search in searches {
            search.join().unwrap();
        }
    }

    #[test]
    fn no_slot_is_given_away_while_a_reader_that_may_have_seen_it_is_inside() {
        explore(3, || readers_beside_one_that_gives_away([0, 1], 2));
        explore(3, || readers_beside_one_that_gives_away([0, 0], 2));
    }

    #[test]
    fn nor_where_readers_come_and_go_while_the_phase_turns_for_another_slot() {
        explore(3, || {
            let world = World::new();
            let searches = {
                let world = Arc::clone(&world);
                thread::spawn(move || {
                    world.search(0);
                    world.search(0);
                })
            };
            // The phase has turned before, and a reader may have seen it half way.
            let _ = world.readers.turn();
            world.give_away(2);
            searches.join().unwrap();
        });
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn one_turn_is_too_few() {
        explore(3, || readers_beside_one_that_gives_away([0, 1], 1));
    }
}
