//! Working memory of walks, kept from one to the next so that a search allocates nothing.

use std::sync::{Arc, Mutex, TryLockError};

use crate::fast::{FastQuery, Generation, Projections};
use crate::kernel::Kernel;
use crate::params::Slot;
use crate::pool::Pool;
use crate::scalar::ScalarQuery;

/// What one walk needs.
pub(crate) struct Scratch {
    pub pool: Pool,
    pub visited: Visited,
    /// Neighbours to be measured, and their distances.
    pub batch: Vec<Slot>,
    pub distances: Vec<f32>,
    pub query: AlignedQuery,
    /// For walks on codes: the generation that was used last, a query to it, and projected vectors.
    pub generation: Option<Arc<Generation>>,
    pub asked: FastQuery,
    pub projections: Projections,
    pub scalar: ScalarQuery,
}

impl Scratch {
    fn new(kernel: Kernel) -> Self {
        Self {
            pool: Pool::new(kernel),
            visited: Visited::default(),
            batch: Vec::new(),
            distances: Vec::new(),
            query: AlignedQuery::default(),
            generation: None,
            asked: FastQuery::default(),
            projections: Projections::default(),
            scalar: ScalarQuery::default(),
        }
    }
}

/// Which slots a walk has seen. A slot is marked with the number of the walk, so that forgetting costs nothing but
/// every 255th time.
#[derive(Default)]
pub(crate) struct Visited {
    marks: Vec<u8>,
    walk: u8,
}

impl Visited {
    /// Forgets every slot. `slots` is how many there are; there may become more.
    pub fn begin(&mut self, slots: usize) {
        if self.marks.len() < slots {
            self.marks.resize(slots.next_power_of_two(), 0);
        }
        self.walk = self.walk.wrapping_add(1);
        if self.walk == 0 {
            self.marks.fill(0);
            self.walk = 1;
        }
    }

    /// Marks a slot. Whether it was new.
    #[inline(always)]
    pub fn insert(&mut self, slot: Slot) -> bool {
        let slot = slot as usize;
        if slot >= self.marks.len() {
            self.grow(slot);
        }
        std::mem::replace(&mut self.marks[slot], self.walk) != self.walk
    }

    #[cold]
    fn grow(&mut self, slot: usize) {
        self.marks.resize((slot + 1).next_power_of_two(), 0);
    }
}

/// A query on a cache-line boundary, so that no load of a kernel straddles two lines.
#[derive(Default)]
pub(crate) struct AlignedQuery {
    values: Vec<f32>,
    start: usize,
    len: usize,
}

impl AlignedQuery {
    /// Copies a query in.
    pub fn set(&mut self, query: &[f32]) {
        if self.values.len() < query.len() + LINE_VALUES {
            self.values = vec![0.0; query.len() + LINE_VALUES];
        }
        self.start = self.values.as_ptr().align_offset(LINE_BYTES).min(LINE_VALUES);
        self.len = query.len();
        self.values[self.start..self.start + self.len].copy_from_slice(query);
    }

    /// The query that was copied in.
    pub fn get(&self) -> &[f32] {
        &self.values[self.start..self.start + self.len]
    }
}

/// Scratches that wait for a walk. Taking one never waits: a place that is being looked at by another is passed over.
pub(crate) struct Scratches {
    kernel: Kernel,
    places: [Mutex<Option<Box<Scratch>>>; PLACES],
}

impl Scratches {
    /// None yet.
    pub fn new(kernel: Kernel) -> Self {
        Self { kernel, places: Default::default() }
    }

    /// Calls `walk` with a scratch.
    pub fn with<R>(&self, walk: impl FnOnce(&mut Scratch) -> R) -> R {
        let mut scratch = self.each_place(Option::take).unwrap_or_else(|| Box::new(Scratch::new(self.kernel)));
        let result = walk(&mut scratch);
        let mut back = Some(scratch);
        self.each_place(|place| {
            if place.is_none() {
                std::mem::swap(place, &mut back);
                Some(())
            } else {
                None
            }
        });
        result
    }

    /// Drops the codes that idle scratches know of; they ask for the current ones when they are used again.
    pub fn forget_codes(&self) {
        self.each_place(|place| {
            if let Some(scratch) = place {
                scratch.scalar = ScalarQuery::default();
                scratch.generation = None;
            }
            None::<()>
        });
    }

    fn each_place<R>(&self, mut visit: impl FnMut(&mut Option<Box<Scratch>>) -> Option<R>) -> Option<R> {
        self.places.iter().find_map(|place| match place.try_lock() {
            Ok(mut place) => visit(&mut place),
            Err(TryLockError::Poisoned(place)) => visit(&mut place.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        })
    }
}

/// Scratches kept for an index; more walks than that at once allocate their own.
const PLACES: usize = 16;
const LINE_VALUES: usize = 16;
const LINE_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visited_forgets_between_walks_over_every_turn_of_its_counter() {
        let mut visited = Visited::default();
        for walk in 0..600u32 {
            visited.begin(10);
            assert!(visited.insert(walk % 10) && visited.insert(1000 + walk), "walk {walk}");
            assert!(!visited.insert(walk % 10) && !visited.insert(1000 + walk), "walk {walk}");
        }
    }

    #[test]
    fn scratches_come_back() {
        let scratches = Scratches::new(Kernel::best());
        scratches.with(|outer| {
            outer.batch.push(1);
            scratches.with(|inner| assert!(inner.batch.is_empty()));
        });
        let kept = scratches.places.iter().filter(|place| place.lock().unwrap().is_some()).count();
        assert_eq!(kept, 2);
    }

    #[test]
    fn queries_are_aligned() {
        let mut query = AlignedQuery::default();
        for len in [3, 700, 12] {
            let values: Vec<f32> = (0..len).map(|value| value as f32).collect();
            query.set(&values);
            assert_eq!(query.get(), values);
            assert_eq!(query.get().as_ptr().addr() % LINE_BYTES, 0);
        }
    }
}
