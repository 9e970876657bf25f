//! The vectors, one row a slot, and the distances between them.
//!
//! A distance here is what the graph is ordered by, lower being nearer: the squared Euclidean distance, the Manhattan
//! distance, or the negative cosine or inner product. [`Rows::score`] makes of it what the caller is told.
//!
//! The inner product is no distance between stored vectors: a long vector is nearer to all than they are to
//! themselves, and a graph made by it has a few hubs and nothing else. So nodes are linked by the Euclidean distance
//! after the reduction of Bachrach et al. (2014): each vector gets one more coordinate that makes all of them as long
//! as the longest. Queries have zero there, so their inner products stay as they are, and order as those distances do.
#![allow(unsafe_code, reason = "arenas: rows are handed to the kernels as pointers")]

use std::sync::atomic::{AtomicU32, Ordering};

use crate::kernel::{Kernel, Measure, MeasureRows, prefetch};
use crate::memory::arena::{Arena, NoMemory};
use crate::params::Metric;
use crate::slot::Slot;

/// f32 values in a cache line, to whole multiples of which rows are padded.
const LINE_VALUES: usize = 16;
/// Lines of one row that are asked for ahead; the processor sees a longer sequence by itself.
const PREFETCH_LINES_MAX: usize = 48;
/// Rows measured by one call of a kernel.
const BATCH: usize = 32;

/// Vectors by slot. With each goes, under cosine, the inverse of its norm, and under dot the square of it: behind the
/// vector in its last cache line if there is room, so that one sequence of lines holds all that a distance needs.
pub(crate) struct Rows {
    dim: usize,
    metric: Metric,
    measure: MeasureRows,
    rows: Arena<AtomicU32>,
    /// Norms, where vectors fill their last line.
    norms: Option<Arena<AtomicU32>>,
    /// Bits of the largest squared norm stored so far; the bits of positive floats order as the floats.
    longest: AtomicU32,
}

/// What distances are measured from.
#[derive(Clone, Copy)]
pub(crate) struct QueryVector<'a> {
    /// As long as the rows.
    values: &'a [f32],
    /// What rows carry behind the vector: see [`Rows`].
    norm: f32,
    /// Whether it is a stored vector, and nodes are to be linked by what is measured.
    is_stored: bool,
}

impl<'a> QueryVector<'a> {
    /// As long as the rows.
    pub fn values(&self) -> &'a [f32] {
        self.values
    }

    /// What a row would carry behind the vector: see [`Rows`].
    pub fn norm(&self) -> f32 {
        self.norm
    }

    /// Whether it is a stored vector, measured to link it.
    pub fn is_stored(&self) -> bool {
        self.is_stored
    }
}

impl Rows {
    /// No vectors yet.
    pub fn new(dim: usize, metric: Metric, kernel: Kernel) -> Self {
        let measure = match metric {
            Metric::Cosine | Metric::Dot => Measure::Product,
            Metric::Euclidean => Measure::SquaredDifference,
            Metric::Manhattan => Measure::AbsoluteDifference,
        };
        let rows = Arena::new("vectors", dim.next_multiple_of(LINE_VALUES));
        let is_full = dim.is_multiple_of(LINE_VALUES) && metric.higher_is_better();
        let norms = is_full.then(|| Arena::new("norms", 1));
        Self { dim, metric, measure: kernel.rows(measure), rows, norms, longest: AtomicU32::new(0) }
    }

    /// What distances are measured by.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// Takes memory for every slot up to this one.
    pub fn reserve(&self, slot: Slot) -> Result<(), NoMemory> {
        self.rows.reserve(slot)?;
        if let Some(norms) = &self.norms {
            norms.reserve(slot)?;
        }
        Ok(())
    }

    /// Writes the row of a vacant slot, which nobody reads. `norm` is the vector's Euclidean norm.
    pub fn store(&self, slot: Slot, vector: &[f32], norm: f64) -> Result<(), NoMemory> {
        self.reserve(slot)?;
        let row = self.rows.get(slot);
        for (to, from) in row.iter().zip(vector) {
            to.store(from.to_bits(), Ordering::Relaxed);
        }
        self.restore_norm(slot, norm);
        Ok(())
    }

    /// Writes values as a dump has them, from the one at `at` on, to a row that has memory and that nobody reads yet.
    pub fn restore(&self, slot: Slot, at: usize, bytes: &[u8]) {
        for (to, from) in self.rows.get(slot)[at..].iter().zip(bytes.as_chunks().0) {
            to.store(u32::from_le_bytes(*from), Ordering::Relaxed);
        }
    }

    /// Writes what goes with the vector of a slot that nobody reads yet.
    pub fn restore_norm(&self, slot: Slot, norm: f64) {
        let norm = self.carried(norm);
        if let Some(carried) = self.carrier(slot) {
            carried.store(norm.to_bits(), Ordering::Relaxed);
            self.longest.fetch_max(norm.to_bits(), Ordering::Relaxed);
        }
    }

    /// The vector of a stored slot.
    #[inline]
    pub fn vector(&self, slot: Slot) -> &[f32] {
        let row = self.rows.get(slot);
        assert!(row.len() >= self.dim, "slot {slot} was never stored");
        // SAFETY: an AtomicU32 has the layout of an f32, and any bits are one. A row is written only while its slot is
        // vacant, before the slot is published with release ordering; and a slot that was published becomes vacant only
        // when every reader that might know of it has left (`readers`, `consolidate`). The caller has been counted among
        // the readers since before it found the slot stored and not retired, or stores the slot, or has the index alone:
        // so nobody writes what is read here.
        unsafe { std::slice::from_raw_parts(row.as_ptr().cast(), self.dim) }
    }

    /// A copy of what stands in the row of a slot that was stored at some time. Unlike [`Self::vector`] it may be called
    /// while the row is written, and gives some of the old values and some of the new ones then.
    pub fn copy(&self, slot: Slot) -> Vec<f32> {
        let row = self.rows.get(slot).iter().take(self.dim);
        row.map(|value| f32::from_bits(value.load(Ordering::Relaxed))).collect()
    }

    /// A query with the vector of a stored slot, to link it by.
    pub fn query(&self, slot: Slot) -> QueryVector<'_> {
        QueryVector { values: self.vector(slot), norm: self.norm(slot), is_stored: true }
    }

    /// A query with a vector of the caller's that has been checked.
    pub fn query_of<'a>(&self, values: &'a [f32], norm: f64) -> QueryVector<'a> {
        QueryVector { values, norm: self.carried(norm), is_stored: false }
    }

    /// The distances from a query to stored slots, in their order, into `out`, which is as long as `slots`.
    #[inline]
    pub fn distances(&self, query: QueryVector<'_>, slots: &[Slot], out: &mut [f32]) {
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
                Metric::Cosine => {
                    for (slot, distance) in slots.iter().zip(out) {
                        // In this order, the distance is the same to the last bit from either end: ties stay ties.
                        *distance = -(*distance * (self.norm(*slot) * query.norm));
                    }
                }
                Metric::Dot if query.is_stored => {
                    let longest = f32::from_bits(self.longest.load(Ordering::Relaxed));
                    for (slot, distance) in slots.iter().zip(out) {
                        *distance = reduced(*distance, query.norm, self.norm(*slot), longest);
                    }
                }
                Metric::Dot => out.iter_mut().for_each(|distance| *distance = -*distance),
            }
        }
    }

    /// The distance between stored vectors that is nearer than this one by a factor, 1 or more.
    #[inline]
    pub fn nearer_by(&self, distance: f32, factor: f32) -> f32 {
        match self.metric {
            _ if factor == 1.0 => distance,
            Metric::Manhattan => distance / factor,
            Metric::Euclidean | Metric::Dot => distance / (factor * factor),
            // The square of the chord is 2 - 2 cos.
            Metric::Cosine => (2.0 + 2.0 * distance) / (2.0 * factor * factor) - 1.0,
        }
    }

    /// What the caller is told for a distance.
    pub fn score(&self, distance: f32) -> f32 {
        match self.metric {
            Metric::Euclidean => distance.sqrt(),
            Metric::Manhattan => distance,
            Metric::Dot => 0.0 - distance,
            Metric::Cosine => (0.0 - distance).clamp(-1.0, 1.0),
        }
    }

    /// Asks for the first line of a row ahead of its use.
    #[inline(always)]
    pub fn prefetch(&self, slot: Slot) {
        prefetch(self.rows.get(slot).as_ptr());
    }

    /// Asks for all lines of a row ahead of its use.
    #[inline(always)]
    pub fn prefetch_all(&self, slot: Slot) {
        let row = self.rows.get(slot);
        for line in 0..(row.len() / LINE_VALUES).min(PREFETCH_LINES_MAX) {
            prefetch(row.as_ptr().wrapping_add(line * LINE_VALUES));
        }
    }

    /// Bytes of memory that the rows of `slots` slots take.
    pub fn bytes(&self, slots: usize) -> usize {
        self.rows.bytes(slots) + self.norms.as_ref().map_or(0, |norms| norms.bytes(slots))
    }

    /// What goes with the vector of a stored slot; 0 where nothing does.
    #[inline(always)]
    fn norm(&self, slot: Slot) -> f32 {
        self.carrier(slot).map_or(0.0, |carrier| f32::from_bits(carrier.load(Ordering::Relaxed)))
    }

    /// Where that is.
    #[inline(always)]
    fn carrier(&self, slot: Slot) -> Option<&AtomicU32> {
        match &self.norms {
            Some(norms) => norms.get(slot).first(),
            None if self.metric.higher_is_better() => self.rows.get(slot).get(self.dim),
            None => None,
        }
    }

    /// What a row carries of its vector's norm.
    fn carried(&self, norm: f64) -> f32 {
        match self.metric {
            Metric::Cosine => (1.0 / norm) as f32,
            Metric::Dot => (norm * norm) as f32,
            Metric::Euclidean | Metric::Manhattan => 0.0,
        }
    }
}

/// The squared Euclidean distance of two vectors that were made as long as the longest by one more coordinate, from
/// their inner product and the squares of the three norms. The difference of the two coordinates is computed from
/// the difference of their squares, which loses nothing where one vector is much longer than the others.
#[inline(always)]
fn reduced(product: f32, a: f32, b: f32, longest: f32) -> f32 {
    let coordinates = (longest - a).max(0.0).sqrt() + (longest - b).max(0.0).sqrt();
    let difference = if coordinates > 0.0 { (a - b) / coordinates } else { 0.0 };
    (a + b - 2.0 * product).max(0.0) + difference * difference
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linking_under_dot_is_by_the_distance_on_the_sphere_of_the_longest() {
        let vectors = [[3.0, 4.0], [1.0, 0.5], [-2.0, 1.0], [0.0, 0.0]];
        let rows = Rows::new(2, Metric::Dot, Kernel::Scalar);
        for (slot, vector) in (0..).zip(&vectors) {
            rows.store(slot, vector, f64::from(vector[0]).hypot(vector[1].into())).unwrap();
        }
        let lifted = vectors.map(|[x, y]| [x, y, (25.0 - x * x - y * y).sqrt()]);
        for (slot, a) in (0..).zip(&lifted) {
            let mut distances = [0.0; 4];
            rows.distances(rows.query(slot), &[0, 1, 2, 3], &mut distances);
            for (distance, b) in distances.iter().zip(&lifted) {
                let expected: f32 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
                assert!((distance - expected).abs() < 1e-4, "{distance} instead of {expected}");
            }
        }
        let mut distances = [0.0; 4];
        rows.distances(rows.query_of(&[2.0, 1.0], 5f64.sqrt()), &[0, 1, 2, 3], &mut distances);
        assert_eq!(distances, [-10.0, -2.5, 3.0, 0.0]);
    }
}
