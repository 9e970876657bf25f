//! The generation of codes that is in use, and when the next one is made.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::codes::codec::{Codec, Held, Stored};
use crate::codes::fast::{Coded, FastQuery, Generation, Model, Projections, Shape, Warming};
use crate::kernel::Kernel;
use crate::memory::arena::NoMemory;
use crate::memory::rows::{QueryVector, Rows};
use crate::params::{Metric, Params};
use crate::slot::Slot;

/// With fewer slots nothing is learned: searches scan them.
const LEARN_SLOTS_MIN: usize = 1_000;
/// A generation is followed by another when the number of slots has grown by this factor since it was learned, or when the slots
/// stored since are this many times all slots.
const GROWTH: usize = 4;
/// Vectors that a model is learned from.
const SAMPLE: usize = 2048;

/// The codes of an index.
pub(crate) struct Fast {
    shape: Shape,
    metric: Metric,
    lanes: usize,
    seed: u64,
    kernel: Kernel,
    /// Number of the generation in use; 0 while there is none.
    number: AtomicU64,
    kept: Mutex<Kept>,
    /// Slots stored since the generation in use was put there.
    stored: AtomicUsize,
    /// One more than the highest slot that room was asked for.
    rooms: AtomicU32,
    /// Whether codes are being made by a model that was loaded, and there are none to go by.
    is_warming: AtomicBool,
    /// Held for reading while a slot is linked, and for writing while a generation takes the place of another.
    linking: RwLock<()>,
}

/// What a search or an insertion keeps: the generation that it used last, and a query to it.
#[derive(Default)]
pub(crate) struct FastMemory {
    generation: Option<Arc<Generation>>,
    asked: FastQuery,
}

/// What is only touched under the lock.
#[derive(Default)]
struct Kept {
    /// The generation in use.
    current: Option<Arc<Generation>>,
    /// The one that is being made of what was loaded; then there is none in use.
    warming: Option<Arc<Warming>>,
}

impl Fast {
    /// No codes yet. There are none of Manhattan distances.
    pub fn new(params: &Params, kernel: Kernel) -> Self {
        Self {
            shape: Shape::new(params.dim),
            metric: params.metric,
            lanes: 2 * params.m,
            seed: params.seed,
            kernel,
            number: AtomicU64::new(0),
            kept: Mutex::default(),
            stored: AtomicUsize::new(0),
            rooms: AtomicU32::new(0),
            is_warming: AtomicBool::new(false),
            linking: RwLock::default(),
        }
    }

    /// The generation in use. `cached` is what the caller used before, or nothing: asking again costs no lock.
    #[inline]
    pub fn current<'c>(&self, cached: &'c mut Option<Arc<Generation>>) -> Option<&'c Arc<Generation>> {
        let number = self.number.load(Ordering::Acquire);
        if cached.as_ref().map_or(0, |cached| cached.number) != number {
            cached.clone_from(&self.kept().current);
        }
        cached.as_ref()
    }

    /// The generation in use or in the making, to keep.
    pub fn keep(&self) -> Option<Arc<Generation>> {
        let Kept { current, warming } = &*self.kept();
        current.clone().or_else(|| warming.as_ref().map(|warming| Arc::clone(&warming.generation)))
    }

    /// The codes in the making, if there are any. A thread that links writes codes there too; the lock of [`Self::hold`] keeps
    /// them from being taken into use meanwhile.
    fn in_the_making(&self) -> Option<Arc<Warming>> {
        if !self.is_warming.load(Ordering::Acquire) {
            return None;
        }
        self.kept().warming.clone()
    }

    /// Learns a new generation from what is stored and makes all codes anew, unless another thread is about to. No slot is
    /// linked meanwhile; searches go on, and so does storing, but for a moment at the end. The caller reads.
    fn learn(&self, Stored { rows, graph, states, storing }: Stored<'_>) -> Result<(), NoMemory> {
        let _linking = self.linking.write().unwrap_or_else(PoisonError::into_inner);
        let slots = states.slots();
        if !self.is_due(slots) {
            return Ok(());
        }
        let mut sample = Vec::new();
        let step = (slots as usize).div_ceil(SAMPLE).max(1);
        // The caller has been reading since before: only slots that are retired by now may be stored anew meanwhile.
        for slot in (0..slots).step_by(step).filter(|slot| states.is_readable(*slot)) {
            let query = rows.query(slot);
            let scale = if self.metric == Metric::Cosine { query.norm() } else { 1.0 };
            sample.extend(query.values().iter().map(|value| value * scale));
        }
        if sample.is_empty() {
            return Ok(());
        }
        let model = Model::train(&sample, self.shape, self.seed, self.kernel);
        let number = self.number.load(Ordering::Relaxed) + 1;
        let generation = Generation::new(number, slots as usize, model, self.metric, self.lanes, self.kernel);
        let mut seen = Projections::default();
        for slot in 0..slots {
            generation.reserve(slot)?;
            if states.is_linked(slot) {
                generation.encode(rows, graph, slot, &mut seen);
            }
        }
        let _storing = storing.lock().unwrap_or_else(PoisonError::into_inner);
        for slot in slots..self.rooms.load(Ordering::Relaxed) {
            generation.reserve(slot)?;
        }
        self.kept().current = Some(Arc::new(generation));
        self.stored.store(0, Ordering::Relaxed);
        self.number.store(number, Ordering::Release);
        Ok(())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Codec for Fast {
    type Memory = FastMemory;
    type Scorer<'a> = Coded<'a>;

    #[inline]
    fn scorer<'a>(&'a self, _rows: &'a Rows, query: QueryVector<'a>, memory: &'a mut FastMemory) -> Option<Coded<'a>> {
        // Under dot nodes are linked by a distance that the codes do not know.
        if self.metric == Metric::Dot && query.is_stored() {
            return None;
        }
        let FastMemory { generation, asked } = memory;
        let generation = self.current(generation)?;
        generation.ask(query, asked);
        Some(Coded { generation, query: asked })
    }

    /// Memory is for what is in use.
    #[inline]
    fn let_go(&self, memory: &mut FastMemory) {
        let number = self.number.load(Ordering::Acquire);
        memory.generation = memory.generation.take().filter(|generation| generation.number == number);
    }

    fn reserve(&self, last: Slot) -> Result<(), NoMemory> {
        self.rooms.fetch_max(last + 1, Ordering::Relaxed);
        match &*self.kept() {
            Kept { current: Some(generation), .. } => generation.reserve(last),
            Kept { warming: Some(warming), .. } => warming.generation().reserve(last),
            Kept { current: None, warming: None } => Ok(()),
        }
    }

    /// Codes are made when the slot is linked.
    fn store(&self, slot: Slot, _rows: &Rows) -> Result<(), NoMemory> {
        self.stored.fetch_add(1, Ordering::Relaxed);
        self.reserve(slot)
    }

    /// There are many more slots than the generation in use was learned from, or as many were used again.
    fn is_due(&self, slots: u32) -> bool {
        if self.is_warming.load(Ordering::Acquire) {
            return false;
        }
        let slots = slots as usize;
        let mut current = None;
        let Some(generation) = self.current(&mut current) else { return slots >= LEARN_SLOTS_MIN };
        slots >= generation.slots.saturating_mul(GROWTH)
            || self.stored.load(Ordering::Relaxed) >= slots.saturating_mul(GROWTH)
    }

    fn renew(&self, stored: Stored<'_>) {
        // Without memory for new codes the old ones serve on, and it is tried again with the next slot.
        let _ = self.learn(stored);
    }

    fn warm(&self, Stored { rows, graph, states, .. }: Stored<'_>, slots: usize) -> bool {
        let Some(warming) = self.in_the_making() else { return false };
        if warming.encode(rows, graph, states, slots) {
            // A thread that links sees either codes in the making or codes in use, and never neither.
            let _linking = self.linking.write().unwrap_or_else(PoisonError::into_inner);
            let mut kept = self.kept();
            kept.current = kept.warming.take().map(|warming| Arc::clone(&warming.generation));
            self.number.store(warming.generation.number, Ordering::Release);
            self.is_warming.store(false, Ordering::Release);
        }
        warming.has_more()
    }

    fn warming(&self) -> Option<(usize, usize)> {
        self.in_the_making().map(|warming| warming.progress())
    }

    fn hold(&self) -> Held<'_> {
        let guard = self.linking.read().unwrap_or_else(PoisonError::into_inner);
        Held { edges: self.keep(), _guard: Some(guard) }
    }

    fn model_values(&self) -> usize {
        Model::values_of(self.shape)
    }

    fn restore(&self, model: &[f32], learned: usize, slots: u32, kernel: Kernel) -> Result<bool, NoMemory> {
        let Some(model) = Model::restore(model, self.shape, kernel) else { return Ok(false) };
        let generation = Generation::new(1, learned, model, self.metric, self.lanes, self.kernel);
        if let Some(last) = slots.checked_sub(1) {
            generation.reserve(last)?;
        }
        self.kept().warming = Some(Arc::new(Warming::new(generation, slots)));
        self.is_warming.store(true, Ordering::Release);
        Ok(true)
    }

    fn bytes_per_slot(&self) -> usize {
        Generation::words_per_slot(self.shape, self.lanes).iter().sum::<usize>() * size_of::<u32>()
    }

    fn bytes(&self, slots: usize) -> usize {
        self.keep().map_or(0, |generation| generation.bytes(slots))
    }
}
