//! Working memory of walks, kept from one to the next so that a search allocates nothing.

use std::sync::{Mutex, TryLockError};

use crate::codes::chosen::CodeMemory;
use crate::codes::fast::Projections;
use crate::kernel::Kernel;
use crate::search::walk_memory::WalkMemory;

/// Scratches kept for an index; more walks than that at once allocate their own.
const PLACES: usize = 16;
/// f32 values in a cache line.
const LINE_VALUES: usize = 16;
/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

/// What one search or one insertion needs.
pub(crate) struct Scratch {
    pub memory: WalkMemory,
    pub query: AlignedQuery,
    /// For walks on codes.
    pub codes: CodeMemory,
    /// Projected vectors, for the codes of new links.
    pub projections: Projections,
}

impl Scratch {
    fn new(kernel: Kernel) -> Self {
        Self {
            memory: WalkMemory::new(kernel),
            query: AlignedQuery::default(),
            codes: CodeMemory::default(),
            projections: Projections::default(),
        }
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
                scratch.codes = CodeMemory::default();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratches_come_back() {
        let scratches = Scratches::new(Kernel::best());
        scratches.with(|outer| {
            outer.memory.batch.push(1);
            scratches.with(|inner| assert!(inner.memory.batch.is_empty()));
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
