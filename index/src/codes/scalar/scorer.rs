//! Walking on scalar codes, and what becomes of what a walk found.
#![allow(unsafe_code, reason = "kernels: codes are handed over as pointers")]

use crate::codes::scalar::generation::{Generation, LINE_BYTES};
use crate::codes::scalar::quantizer::Gauge;
use crate::kernel::prefetch;
use crate::memory::rows::{QueryVector, Rows};
use crate::search::walk::Scorer;
use crate::search::walk_memory::WalkMemory;
use crate::slot::Slot;

/// Share of the distances by which those by codes may be off.
const COARSE: f32 = 0.25;
/// Lines of a code fetched ahead; the processor sees a longer sequence by itself.
const PREFETCH_LINES_MAX: usize = 8;
/// Codes measured by one call of a kernel.
const BATCH: usize = 64;
/// Candidates beyond the best `k` that are measured by their vectors at least, and this many more at a time.
const RERANK_STEP: usize = 16;

/// Distances by codes.
#[derive(Clone, Copy)]
pub(crate) struct ScalarScorer<'a> {
    pub generation: &'a Generation,
    pub weights: &'a [i8],
    pub gauge: Gauge,
}

impl Scorer for ScalarScorer<'_> {
    fn origin(&self) -> Option<f32> {
        self.gauge.origin()
    }

    #[inline]
    fn distances(&self, slots: &[Slot], out: &mut [f32]) {
        let bytes = self.generation.quantizer.bytes();
        for (slots, out) in slots.chunks(BATCH).zip(out.chunks_mut(BATCH)) {
            let mut pointers = [std::ptr::null::<u8>(); BATCH];
            let mut is_missing = false;
            for (pointer, slot) in pointers.iter_mut().zip(slots) {
                let code = self.generation.codes.get(*slot);
                // A slot stored after a newer generation took over has no code here. Any bytes will do in its place.
                is_missing |= code.is_empty();
                *pointer = if code.is_empty() { self.weights.as_ptr().cast() } else { code.as_ptr().cast() };
            }
            let pointers = &pointers[..slots.len()];
            let measure = self.generation.measure;
            // SAFETY: there are twice as many weights as a code has bytes, codes are padded words of an arena that were
            // written before their slots were published, and the kernel was checked when the index was made.
            unsafe { measure(self.weights.as_ptr(), self.gauge.scales, bytes, pointers, out) };
            if is_missing {
                for (slot, out) in slots.iter().zip(out) {
                    if self.generation.codes.get(*slot).is_empty() {
                        *out = f32::MAX;
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn prefetch(&self, slot: Slot) {
        let code = self.generation.codes.get(slot);
        for line in code.chunks(LINE_BYTES / size_of::<u32>()).take(PREFETCH_LINES_MAX) {
            prefetch(line.as_ptr());
        }
    }

    fn is_coarse(&self, coded: impl Iterator<Item = f32> + Clone, exact: &[f32]) -> bool {
        let errors = coded.zip(exact).map(|(coded, exact)| self.gauge.error(coded, *exact));
        let (error, size) = errors.fold((0.0, 0.0), |(error, size), next| (error + next.0, size + next.1));
        error > COARSE * size
    }

    /// Candidates are measured by the vectors, nearest first, for as long as that changes what the best are: where codes tell
    /// little, more is measured.
    fn rank(&self, rows: &Rows, query: QueryVector<'_>, k: usize, _ef: usize, memory: &mut WalkMemory) -> bool {
        let WalkMemory { pool, batch, distances, .. } = memory;
        batch.clear();
        batch.extend(pool.iter().map(|(_, slot)| slot));
        distances.resize(batch.len(), 0.0);
        let mut done = 0;
        while done < batch.len() {
            let next = done..batch.len().min(done + RERANK_STEP + if done == 0 { k } else { 0 });
            let (slots, distances) = (&batch[next.clone()], &mut distances[next.clone()]);
            slots.iter().for_each(|slot| rows.prefetch_all(*slot));
            rows.distances(query, slots, distances);
            if done == 0 {
                if self.is_coarse(pool.iter().map(|(distance, _)| distance), distances) {
                    return false;
                }
                pool.begin(k);
            }
            let bound = pool.bound();
            if distances.iter().all(|distance| *distance > bound) {
                break;
            }
            for (distance, slot) in distances.iter().zip(slots) {
                pool.insert(*distance, *slot, || true);
            }
            done = next.end;
        }
        if batch.is_empty() {
            pool.begin(k);
        }
        true
    }
}
