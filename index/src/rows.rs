//! The vectors, one row a slot, and the distances between them.
//!
//! A distance here is what the graph is ordered by, lower being nearer: the squared Euclidean distance, the Manhattan
//! distance, or the negative cosine or inner product. [`Rows::score`] makes of it what the caller is told.
#![allow(unsafe_code, reason = "arenas: rows are handed to the kernels as pointers")]

use std::sync::atomic::{AtomicU32, Ordering};

use crate::arena::{Arena, NoMemory};
use crate::kernel::{Kernel, Measure, MeasureRows, prefetch};
use crate::params::{Metric, Slot};

/// Vectors by slot. A row is the vector, then, under cosine, the inverse of its norm, so that one sequence of cache
/// lines holds all that a distance needs.
pub(crate) struct Rows {
    dim: usize,
    metric: Metric,
    measure: MeasureRows,
    rows: Arena<AtomicU32>,
}

/// What distances are measured from.
#[derive(Clone, Copy)]
pub(crate) struct Query<'a> {
    /// As long as the rows.
    pub values: &'a [f32],
    /// One divided by the norm under cosine, else 1.
    pub inverse_norm: f32,
}

impl Rows {
    /// No vectors yet.
    pub fn new(dim: usize, metric: Metric, kernel: Kernel) -> Self {
        let measure = match metric {
            Metric::Cosine | Metric::Dot => Measure::Product,
            Metric::Euclidean => Measure::SquaredDifference,
            Metric::Manhattan => Measure::AbsoluteDifference,
        };
        let width = (dim + usize::from(metric == Metric::Cosine)).next_multiple_of(LINE_VALUES);
        Self { dim, metric, measure: kernel.rows(measure), rows: Arena::new("vectors", width) }
    }

    /// Writes the row of a slot that nobody reads yet. `norm` is the vector's Euclidean norm.
    pub fn store(&self, slot: Slot, vector: &[f32], norm: f64) -> Result<(), NoMemory> {
        self.rows.reserve(slot)?;
        let row = self.rows.get(slot);
        for (to, from) in row.iter().zip(vector) {
            to.store(from.to_bits(), Ordering::Relaxed);
        }
        if self.metric == Metric::Cosine {
            row[self.dim].store(self.inverse_norm(norm).to_bits(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// The vector of a stored slot.
    #[inline]
    pub fn vector(&self, slot: Slot) -> &[f32] {
        let row = self.rows.get(slot);
        assert!(row.len() >= self.dim, "slot {slot} was never stored");
        // SAFETY: an AtomicU32 has the layout of an f32, any bits are one, and a row is written once, before its slot
        // is published with release ordering, so that nobody writes what is read here.
        unsafe { std::slice::from_raw_parts(row.as_ptr().cast(), self.dim) }
    }

    /// A query with the vector of a stored slot.
    pub fn query(&self, slot: Slot) -> Query<'_> {
        let inverse_norm = match self.metric {
            Metric::Cosine => f32::from_bits(self.rows.get(slot)[self.dim].load(Ordering::Relaxed)),
            _ => 1.0,
        };
        Query { values: self.vector(slot), inverse_norm }
    }

    /// A query with a vector of the caller's that has been checked.
    pub fn query_of<'a>(&self, values: &'a [f32], norm: f64) -> Query<'a> {
        Query { values, inverse_norm: self.inverse_norm(norm) }
    }

    /// The distances from a query to stored slots, in their order, into `out`, which is as long as `slots`.
    #[inline]
    pub fn distances(&self, query: Query<'_>, slots: &[Slot], out: &mut [f32]) {
        assert_eq!(query.values.len(), self.dim);
        for (slots, out) in slots.chunks(BATCH).zip(out.chunks_mut(BATCH)) {
            let mut pointers = [std::ptr::null(); BATCH];
            for (pointer, slot) in pointers.iter_mut().zip(slots) {
                *pointer = self.vector(*slot).as_ptr();
            }
            let pointers = &pointers[..slots.len()];
            // SAFETY: the query is `dim` long, so is every row, and the kernel was checked when the index was made.
            unsafe { (self.measure)(query.values.as_ptr(), self.dim, pointers, out) };
            match self.metric {
                Metric::Euclidean | Metric::Manhattan => {}
                Metric::Dot => out.iter_mut().for_each(|distance| *distance = -*distance),
                Metric::Cosine => {
                    for (pointer, distance) in pointers.iter().zip(out) {
                        // SAFETY: under cosine a row is at least one value longer than the vector: the inverse norm.
                        let inverse_norm = unsafe { *pointer.add(self.dim) };
                        *distance = -(*distance * inverse_norm * query.inverse_norm);
                    }
                }
            }
        }
    }

    /// What the caller is told for a distance.
    pub fn score(&self, distance: f32) -> f32 {
        match self.metric {
            Metric::Euclidean => distance.sqrt(),
            Metric::Manhattan => distance,
            Metric::Dot => -distance,
            Metric::Cosine => (-distance).clamp(-1.0, 1.0),
        }
    }

    /// Asks for the first line of a row ahead of its use.
    #[inline(always)]
    pub fn prefetch(&self, slot: Slot) {
        prefetch(self.rows.get(slot).as_ptr());
    }

    /// Bytes of memory that the rows of so many slots take.
    pub fn bytes(&self, slots: usize) -> usize {
        self.rows.bytes(slots)
    }

    fn inverse_norm(&self, norm: f64) -> f32 {
        if self.metric == Metric::Cosine { (1.0 / norm) as f32 } else { 1.0 }
    }
}

/// f32 values in a cache line, to whole multiples of which rows are padded.
const LINE_VALUES: usize = 16;
/// Rows measured by one call of a kernel.
const BATCH: usize = 32;
