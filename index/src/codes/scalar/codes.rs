//! The codes of all slots, and how they are made anew when the vectors have become others.
//!
//! A *generation* is one quantizer and every slot's code by it. When there are four times as many slots as it was
//! trained on, or new vectors are coded much worse than those were, the next is made beside it while walks go on, and
//! then takes its place. A walk keeps the generation that it began with, and finds out about the next one by a number;
//! only when that has changed does it take a lock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::codes::codec::{Codec, Stored};
use crate::codes::scalar::generation::{Generation, stride};
use crate::codes::scalar::quantizer::{Buffers, Quantizer, Source};
use crate::codes::scalar::scorer::ScalarScorer;
use crate::kernel::Kernel;
use crate::memory::arena::NoMemory;
use crate::memory::rows::{QueryVector, Rows};
use crate::memory::states::States;
use crate::params::{Metric, Params};
use crate::slot::Slot;

/// Fewer slots are walked by their vectors: they say too little of those to come.
const SLOTS_MIN: u32 = 1024;
/// A generation is trained anew when there are this many times the slots that it was trained on.
const GROWTH: u32 = 4;
/// A generation that was trained on this many slots is not trained anew because there are more.
const SLOTS_ENOUGH: u32 = 100_000;
/// Vectors of a sample for each dimension, within [`SAMPLE_RANGE`].
const SAMPLE_PER_DIM: usize = 8;
/// Vectors of a sample: at least and at most.
const SAMPLE_RANGE: (usize, usize) = (4096, 16_384);
/// Slots stored since the last training before their errors say anything.
const DRIFT_SLOTS_MIN: u32 = 1024;
/// Mean error of codes stored since, as a share of what was expected, from which on training is worth while.
const DRIFT_MAX: f32 = 1.5;
/// No single error counts for more.
const SHARE_MAX: f32 = 100.0;
/// Whole numbers that an error is counted in.
const SHARE_UNITS: f32 = 256.0;

/// Codes by slot.
pub(crate) struct ScalarCodes {
    dim: usize,
    metric: Metric,
    kernel: Kernel,
    seed: u64,
    kept: Mutex<Kept>,
    /// Generations so far.
    number: AtomicU64,
    training: Mutex<()>,
    /// Slots from which on it is time to train.
    due_slots: AtomicU32,
    /// What tells whether the vectors have become others.
    drift: Drift,
}

/// What is only touched under the lock.
#[derive(Default)]
struct Kept {
    current: Option<Arc<Generation>>,
    /// The one in the making; what is stored meanwhile is coded by it too.
    next: Option<Arc<Generation>>,
    buffers: Buffers,
    code: Vec<u8>,
}

/// Errors of the codes of slots stored since the last training.
#[derive(Default)]
struct Drift {
    count: AtomicU32,
    /// Sum of errors in units of the one that training expects.
    error: AtomicU64,
}

/// Working memory of a walk, and the generation that it knows.
#[derive(Default)]
pub(crate) struct ScalarQuery {
    number: u64,
    generation: Option<Arc<Generation>>,
    buffers: Buffers,
    weights: Vec<i8>,
}

impl ScalarCodes {
    /// No codes, and no generation until there is something to learn from.
    pub fn new(params: &Params, kernel: Kernel) -> Self {
        Self {
            dim: params.dim,
            metric: params.metric,
            kernel,
            seed: params.seed,
            kept: Mutex::default(),
            number: AtomicU64::new(0),
            training: Mutex::default(),
            due_slots: AtomicU32::new(SLOTS_MIN),
            drift: Drift::default(),
        }
    }

    /// Live vectors, spread evenly over the slots.
    fn sample<'a>(&self, rows: &'a Rows, states: &States, slots: u32) -> Vec<Source<'a>> {
        let dim = rows.query(0).values().len();
        let most = (SAMPLE_PER_DIM * dim).clamp(SAMPLE_RANGE.0, SAMPLE_RANGE.1);
        let step = (slots as usize / most).max(1);
        let picked = (0..slots).step_by(step).filter(|slot| states.is_live(*slot));
        picked.map(|slot| source_of(&rows.query(slot), self.metric)).collect()
    }
}

impl Codec for ScalarCodes {
    type Memory = ScalarQuery;
    type Scorer<'a> = ScalarScorer<'a>;

    fn scorer<'a>(
        &'a self,
        _rows: &'a Rows,
        query: QueryVector<'a>,
        buffer: &'a mut ScalarQuery,
    ) -> Option<ScalarScorer<'a>> {
        let number = self.number.load(Ordering::Acquire);
        if number != buffer.number {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            buffer.generation.clone_from(&kept.current);
            buffer.number = number;
        }
        let generation = buffer.generation.as_deref()?;
        let source = source_of(&query, self.metric);
        let quantizer = &generation.quantizer;
        let gauge = quantizer.weigh(source, query.is_stored(), &mut buffer.buffers, &mut buffer.weights);
        Some(ScalarScorer { generation, weights: &buffer.weights, gauge })
    }

    fn reserve(&self, last: Slot) -> Result<(), NoMemory> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.current.iter().chain(&kept.next).try_for_each(|generation| generation.codes.reserve(last))
    }

    fn store(&self, slot: Slot, rows: &Rows) -> Result<(), NoMemory> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Kept { current, next, buffers, code } = &mut *kept;
        let source = source_of(&rows.query(slot), self.metric);
        if let Some(generation) = next {
            generation.store(slot, source, buffers, code)?;
        }
        if let Some(generation) = current {
            let error = generation.store(slot, source, buffers, code)?;
            self.drift.add(error, generation.quantizer.error);
        }
        Ok(())
    }

    fn is_due(&self, slots: u32) -> bool {
        slots >= self.due_slots.load(Ordering::Relaxed) || self.drift.is_large()
    }

    fn is_due_at_once(&self, slots: u32) -> bool {
        self.number.load(Ordering::Acquire) == 0 && self.is_due(slots)
    }

    /// One thread does; others pass by.
    fn renew(&self, Stored { rows, states, storing, .. }: Stored<'_>) {
        let Ok(_training) = self.training.try_lock() else { return };
        let trained_slots = states.slots();
        if !self.is_due(trained_slots) {
            return;
        }
        let sample = self.sample(rows, states, trained_slots);
        if sample.is_empty() {
            self.due_slots.store(trained_slots.saturating_mul(2), Ordering::Relaxed);
            return;
        }
        let quantizer = Quantizer::train(&sample, self.metric, self.seed, self.kernel);
        drop(sample);
        let next = Arc::new(Generation::new(quantizer, self.kernel));
        let due_slots = if trained_slots < SLOTS_ENOUGH { trained_slots * GROWTH } else { u32::MAX };
        self.due_slots.store(due_slots, Ordering::Relaxed);
        self.drift.reset();
        let slots = {
            // What was stored before is seen as stored below, and what is stored from now on is coded as it comes.
            let _storing = storing.lock().unwrap_or_else(PoisonError::into_inner);
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.next = Some(Arc::clone(&next));
            states.slots().max(trained_slots)
        };
        let (mut buffers, mut code) = (Buffers::default(), Vec::new());
        // The caller has been reading since before: a slot that is not retired now keeps its vector until this is done. One
        // that is retired may be stored anew at any moment, and is then coded as it is stored.
        let stored = (0..slots).filter(|slot| states.is_readable(*slot));
        let mut coded =
            stored.map(|slot| next.store(slot, source_of(&rows.query(slot), self.metric), &mut buffers, &mut code));
        let is_coded = coded.all(|stored| stored.is_ok());
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.next = None;
        if is_coded {
            kept.current = Some(next);
            self.number.fetch_add(1, Ordering::Release);
        }
    }

    /// About one for each value.
    fn bytes_per_slot(&self) -> usize {
        stride(self.dim)
    }

    fn bytes(&self, slots: usize) -> usize {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let generations = kept.current.iter().chain(&kept.next);
        generations.map(|generation| generation.codes.bytes(slots) + generation.quantizer.memory_bytes()).sum()
    }
}

impl Drift {
    fn add(&self, error: f32, expected: f32) {
        let share =
            if expected > 0.0 { (error / expected).clamp(0.0, SHARE_MAX) } else { f32::from(u8::from(error > 0.0)) };
        self.error.fetch_add((share * SHARE_UNITS) as u64, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn is_large(&self) -> bool {
        let count = self.count.load(Ordering::Relaxed);
        count >= DRIFT_SLOTS_MIN
            && self.error.load(Ordering::Relaxed) as f64 > f64::from(count) * f64::from(DRIFT_MAX * SHARE_UNITS)
    }

    fn reset(&self) {
        self.count.store(0, Ordering::Relaxed);
        self.error.store(0, Ordering::Relaxed);
    }
}

fn source_of<'a>(query: &QueryVector<'a>, metric: Metric) -> Source<'a> {
    let norm = query.norm();
    // Under cosine the inverse of the norm is kept, under dot its square.
    let norm_squared = if metric == Metric::Cosine { 1.0 / (norm * norm) } else { norm };
    Source { values: query.values(), norm_squared }
}
