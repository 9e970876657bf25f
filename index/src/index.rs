//! The index: slots, their vectors, the graph over them, and the searches.

use std::cell::Cell;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::arena::NoMemory;
use crate::breadth::Growth;
use crate::consolidate::Rounds;
use crate::error::{IndexError, VectorError};
use crate::fast::Fast;
use crate::flat::Flat;
use crate::graph::Graph;
use crate::hnsw::Hnsw;
use crate::kernel::Kernel;
use crate::kind::{Ask, Kind};
use crate::link::Linker;
use crate::meetings::Meetings;
use crate::params::{Hit, Metric, Params, Profile, SLOT_MAX, SearchOptions, Slot};
use crate::readers::{Readers, Reading};
use crate::rows::Rows;
use crate::scalar::ScalarCodes;
use crate::scratch::{Scratch, Scratches};
use crate::states::States;

/// Vectors by slot, found by nearness. All methods take `&self`: any number of threads search, link and bury while
/// one stores.
///
/// ```
/// use vecino_index::{Index, Metric, Params, SearchOptions};
///
/// let index = Index::new(Params::new(2, Metric::Euclidean))?;
/// index.store(0, &[0.0, 0.0])?;
/// index.store(1, &[3.0, 4.0])?;
/// while let Some(slot) = index.next_unlinked() {
///     index.link(slot);
/// }
/// let hits = index.search(&[3.0, 0.0], &SearchOptions::new(2, 100))?;
/// assert_eq!(hits.iter().map(|hit| (hit.slot, hit.score)).collect::<Vec<_>>(), [(0, 3.0), (1, 4.0)]);
/// # Ok::<(), vecino_index::IndexError>(())
/// ```
pub struct Index {
    pub(crate) params: Params,
    pub(crate) kernel: Kernel,
    pub(crate) rows: Rows,
    pub(crate) graph: Graph,
    pub(crate) states: States,
    pub(crate) fast: Option<Fast>,
    pub(crate) scalar: Option<ScalarCodes>,
    pub(crate) readers: Readers,
    pub(crate) rounds: Rounds,
    meetings: Meetings,
    pub(crate) growth: Growth,
    flat_live_max: usize,
    pub(crate) scratches: Scratches,
    /// Held while a slot is stored: arenas grow under one thread.
    pub(crate) storing: Mutex<()>,
    allowance: OnceLock<Box<Allowance>>,
}

/// Whether an index may take so many bytes more, until what it is given is dropped.
pub type Allowance = dyn Fn(usize) -> Option<Box<dyn Send + Sync>> + Send + Sync;

impl Index {
    /// An empty index. It takes next to no memory until the first slot is stored.
    pub fn new(params: Params) -> Result<Self, IndexError> {
        let kernel = params.check()?;
        Ok(Self {
            rows: Rows::new(params.dim, params.metric, kernel),
            graph: Graph::new(params.m, params.seed),
            fast: Fast::new(&params, kernel),
            states: States::new(),
            scalar: (params.profile == Profile::Compact && params.metric != Metric::Manhattan)
                .then(|| ScalarCodes::new(params.metric, params.seed, kernel)),
            readers: Readers::new(),
            rounds: Rounds::new(),
            meetings: Meetings::default(),
            growth: Growth::new(),
            scratches: Scratches::new(kernel),
            storing: Mutex::default(),
            allowance: OnceLock::new(),
            flat_live_max: params.flat_slots(),
            params,
            kernel,
        })
    }

    /// What the index was made with.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The kernel that computes its distances.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// Checks a vector that is to be stored or searched for: its dimension, that every value is finite, and that its
    /// norm is one that distances can be computed with.
    pub fn validate(&self, vector: &[f32]) -> Result<(), VectorError> {
        self.params.check_vector(vector).map(|_| ())
    }

    /// Stores a vector under a slot that is [vacant](Self::is_vacant): above all those stored before, skipped by them, or
    /// [handed out](Self::take_vacant) to be used again. The slot is live from now on and found by searches, by a scan
    /// until it is linked.
    pub fn store(&self, slot: Slot, vector: &[f32]) -> Result<(), IndexError> {
        let norm = self.params.check_vector(vector)?;
        let _storing = self.storing.lock().unwrap_or_else(PoisonError::into_inner);
        self.store_raw(slot, vector, norm, self.graph.level_of(slot))?;
        self.states.publish(slot);
        Ok(())
    }

    /// Writes a slot's row and makes room for its links, unpublished. `norm` is that of the vector.
    pub(crate) fn store_raw(&self, slot: Slot, vector: &[f32], norm: f64, level: usize) -> Result<(), IndexError> {
        if slot > SLOT_MAX || !self.is_vacant(slot) {
            return Err(IndexError::SlotTaken { slot, next: self.states.slots() });
        }
        self.states.reserve(slot)?;
        self.rows.store(slot, vector, norm)?;
        if let Some(fast) = &self.fast {
            fast.reserve(slot)?;
        }
        if let Some(scalar) = &self.scalar {
            scalar.store(slot, &self.rows)?;
        }
        self.graph.reserve(slot, level)?;
        Ok(())
    }

    /// Makes room for every slot that was never stored, up to and with this one: storing them then asks the system for no
    /// more memory, so that what has to be stored can be known to have room before anybody is told so.
    pub fn reserve(&self, last: Slot) -> Result<(), IndexError> {
        let _storing = self.storing.lock().unwrap_or_else(PoisonError::into_inner);
        let next = self.states.slots();
        if last > SLOT_MAX {
            return Err(IndexError::SlotTaken { slot: last, next });
        }
        if last < next {
            return Ok(());
        }
        self.states.reserve(last)?;
        self.rows.reserve(last)?;
        if let Some(fast) = &self.fast {
            fast.make_room(last)?;
        }
        if let Some(scalar) = &self.scalar {
            scalar.reserve(last)?;
        }
        self.graph.reserve_range(next, last)?;
        Ok(())
    }

    /// Has the index ask before it makes its codes anew, which takes memory beside that of the codes in use. Where it is
    /// refused those serve on, and it asks again. Only the first call counts.
    pub fn ask_before_growing(&self, allowance: Box<Allowance>) {
        let _ = self.allowance.set(allowance);
    }

    fn may_take(&self, bytes: usize) -> Option<Box<dyn Send + Sync>> {
        self.allowance.get().map_or_else(|| Some(Box::new(()) as _), |ask| ask(bytes))
    }

    /// Bytes of memory that one more slot takes, on average over the levels of slots, with the codes that it will have.
    pub fn bytes_per_slot(&self) -> usize {
        self.bytes_per_slot_uncoded()
            + self.fast.as_ref().map_or(0, Fast::bytes_per_slot)
            + self.scalar.as_ref().map_or(0, |scalar| scalar.bytes_per_slot(self.params.dim))
    }

    /// The same without codes: what an index takes at least.
    pub fn bytes_per_slot_uncoded(&self) -> usize {
        self.rows.bytes(1) + self.graph.bytes_per_slot() + self.states.bytes(1)
    }

    /// Inserts a stored slot into the graph. Any number of threads may do so at once; a slot that is linked, being
    /// linked, buried or not stored is left as it is.
    pub fn link(&self, slot: Slot) {
        let _held = self.rounds.hold();
        let _reading = self.reading();
        if !self.states.begin_linking(slot) {
            return;
        }
        if let Some(scalar) = &self.scalar
            && scalar.wants_training(self.states.slots())
            && let Some(_held) = self.may_take(self.slots() * scalar.bytes_per_slot(self.params.dim))
        {
            scalar.train(&self.rows, &self.states, &self.storing);
            self.scratches.forget_codes();
        }
        if let Some(fast) = &self.fast
            && fast.is_due(self.slots(), &mut None)
            && let Some(_room) = self.may_take(self.slots() * fast.bytes_per_slot())
        {
            // Without memory for new codes the old ones serve on, and it is tried again with the next slot.
            let _ = fast.renew(&self.rows, &self.graph, &self.states, &self.storing);
            self.scratches.forget_codes();
        }
        // Linked before codes are let go of: whoever makes all codes anew makes those of linked slots.
        self.with_linker(|linker, scratch| {
            self.meetings.come(slot);
            linker.link(slot, scratch);
            self.states.finish_linking(slot);
            linker.meet(slot, &self.meetings.go(slot), scratch);
        });
        if self.growth.is_due(self.states.live().saturating_sub(self.states.unlinked())) {
            self.measure_growth();
        }
    }

    /// Calls `work` with what changes the graph, by the codes that are in use. The caller holds rounds and reads.
    pub(crate) fn with_linker<R>(&self, work: impl FnOnce(&Linker<'_>, &mut Scratch) -> R) -> R {
        let Params { m, ef_construction, .. } = self.params;
        self.scratches.with(|scratch| {
            let _held = self.fast.as_ref().map(Fast::hold);
            let mut cached = scratch.generation.take();
            let current = self.fast.as_ref().and_then(|fast| fast.current(&mut cached)).map(Arc::as_ref);
            let is_coded = current.is_some();
            let warming = if is_coded { None } else { self.fast.as_ref().and_then(Fast::warming) };
            let generation = current.or_else(|| warming.as_ref().map(|warming| warming.generation()));
            let Self { rows, graph, states, .. } = self;
            let (scalar, lonely) = (self.scalar.as_ref(), Cell::new(false));
            let growth = &self.growth;
            let linker =
                Linker { rows, graph, states, generation, is_coded, scalar, m, ef_construction, lonely, growth };
            let result = work(&linker, scratch);
            if let Some(fast) = &self.fast {
                fast.keep_cached(cached, &mut scratch.generation);
            }
            result
        })
    }

    /// Makes the codes of up to so many slots of an index that was loaded, in step with links that are made meanwhile;
    /// once all are made, searches go by them. Any number of threads may do so at once, beside everything else. Whether
    /// there may be more to do.
    pub fn warm(&self, slots: usize) -> bool {
        let _held = self.rounds.hold();
        let _reading = self.reading();
        if let Some(scalar) = &self.scalar
            && scalar.is_untrained()
            && scalar.wants_training(self.states.slots())
            && let Some(_held) = self.may_take(self.slots() * scalar.bytes_per_slot(self.params.dim))
        {
            scalar.train(&self.rows, &self.states, &self.storing);
            self.scratches.forget_codes();
        }
        self.fast.as_ref().is_some_and(|fast| fast.warm(&self.rows, &self.graph, &self.states, slots))
    }

    /// How many of the slots that were loaded have their codes, and of how many, while not all have.
    pub fn warming(&self) -> Option<(usize, usize)> {
        let slots = self.states.slots();
        if self.scalar.as_ref().is_some_and(|scalar| scalar.is_untrained() && scalar.wants_training(slots)) {
            return Some((0, slots as usize));
        }
        self.fast.as_ref().and_then(Fast::warming).map(|warming| warming.progress())
    }

    /// While what is returned lives, every slot that a search has given or that is in use keeps its vector, even if it is
    /// buried: no slot is stored again that was not vacant when this was called. It costs next to nothing, and it makes
    /// nobody wait; but held for long, it lets slots be used up.
    pub fn reading(&self) -> Reading<'_> {
        self.readers.enter()
    }

    /// A live slot that is not in the graph, for the caller to [link](Self::link); each is handed out once. None while
    /// there are so few that no graph is made of them: see [`Params::flat_live_max`].
    pub fn next_unlinked(&self) -> Option<Slot> {
        if self.has_graph() { self.states.claim() } else { None }
    }

    /// Number of live slots that are to be in the graph and are not yet; every search scans them.
    pub fn unlinked(&self) -> usize {
        if self.has_graph() { self.states.unlinked() } else { 0 }
    }

    /// Takes a slot out of the results of every search that begins from now on. Walks still lead through it.
    pub fn bury(&self, slot: Slot) {
        self.states.bury(slot);
    }

    /// Whether a slot is stored and not buried.
    pub fn is_live(&self, slot: Slot) -> bool {
        slot < self.states.slots() && self.states.is_live(slot)
    }

    /// Number of live slots.
    pub fn len_live(&self) -> usize {
        self.states.live()
    }

    /// One more than the highest slot stored.
    pub fn slots(&self) -> usize {
        self.states.slots() as usize
    }

    /// The vector of a slot, live or buried, bit by bit as it was stored. A caller that has been [reading](Self::reading)
    /// since before it learned of the slot gets the vector that the slot had then. To any other caller a slot that was
    /// buried gives that vector, one that was stored there since, or values of both.
    pub fn vector(&self, slot: Slot) -> Option<Vec<f32>> {
        (slot < self.states.slots() && self.states.is_stored(slot)).then(|| self.rows.copy(slot))
    }

    /// The best hits, best first, ties by slot. Small indexes and wide searches are answered by a scan, the others by
    /// a walk; where that finds fewer than `k`, because most of what is near is buried or refused by the filter, a
    /// scan makes up for it: there are `k` hits whenever `k` live slots pass the filter and the threshold.
    pub fn search(&self, query: &[f32], options: &SearchOptions<'_>) -> Result<Vec<Hit>, IndexError> {
        self.answer(query, options, Self::scans_sooner)
    }

    /// The best hits by looking at every live slot: the oracle.
    pub fn search_exact(&self, query: &[f32], options: &SearchOptions<'_>) -> Result<Vec<Hit>, IndexError> {
        self.answer(query, options, |_, _, _| true)
    }

    /// Bytes of memory that the index holds for its slots.
    pub fn memory_bytes(&self) -> usize {
        let slots = self.slots();
        self.rows.bytes(slots)
            + self.graph.bytes(slots)
            + self.states.bytes(slots)
            + self.fast.as_ref().map_or(0, |fast| fast.bytes(slots))
            + self.scalar.as_ref().map_or(0, |scalar| scalar.bytes(slots))
    }

    /// Searches; `scans` decides between scan and walk by the number of live slots and `ef`.
    pub(crate) fn answer(
        &self,
        query: &[f32],
        options: &SearchOptions<'_>,
        scans: impl FnOnce(&Self, usize, usize) -> bool,
    ) -> Result<Vec<Hit>, IndexError> {
        options.check()?;
        let norm = self.params.check_vector(query)?;
        let _reading = self.reading();
        let live = self.states.live();
        let ef = options.ef.max(options.k);
        Ok(self.scratches.with(|scratch| {
            let mut aligned = std::mem::take(&mut scratch.query);
            aligned.set(query);
            let ask = Ask { query: self.rows.query_of(aligned.get(), norm), options, ef, live };
            let kind: &dyn Kind = if scans(self, live, ef) { &Flat(self) } else { &Hnsw(self) };
            let found = kind.nearest(ask, scratch).or_else(|| Flat(self).nearest(ask, scratch));
            scratch.query = aligned;
            self.hits(found.unwrap_or_default(), options)
        }))
    }

    /// Whether looking at every slot is sooner done than a walk, which jumps about in memory for each distance.
    fn scans_sooner(&self, live: usize, ef: usize) -> bool {
        live < FLAT_LIVE_MIN
            || ef > WALK_EF_MAX
            || ef >= live / FLAT_EF_SHARE
            || self.states.unlinked() > live / FLAT_TAIL_SHARE
    }

    /// Whether there is a graph, or enough for one.
    fn has_graph(&self) -> bool {
        self.graph.entry().is_some() || self.states.live() > self.flat_live_max
    }

    /// What the caller is told of what was found.
    fn hits(&self, found: Vec<(f32, Slot)>, options: &SearchOptions<'_>) -> Vec<Hit> {
        let higher_is_better = self.params.metric.higher_is_better();
        let passes = |hit: &Hit| match options.threshold {
            None => true,
            Some(least) if higher_is_better => hit.score >= least,
            Some(most) => hit.score <= most,
        };
        let score = |(distance, slot)| Hit { slot, score: self.rows.score(distance) };
        let mut hits: Vec<Hit> = found.into_iter().take(options.k).map(score).filter(passes).collect();
        // Distances that differ may give equal scores, and those go by slot.
        let sign = if higher_is_better { -1.0 } else { 1.0 };
        hits.sort_by(|a, b| (sign * a.score).total_cmp(&(sign * b.score)).then(a.slot.cmp(&b.slot)));
        hits
    }
}

impl From<NoMemory> for IndexError {
    fn from(NoMemory { arena, bytes, source }: NoMemory) -> Self {
        Self::Memory { arena, bytes, source }
    }
}

/// Fewer live slots than this are scanned.
const FLAT_LIVE_MIN: usize = 1_000;
/// A search whose `ef` is this share of the live slots is a scan: a walk would measure most of them anyway.
const FLAT_EF_SHARE: usize = 16;
/// Where more than this share of the live slots is not in the graph yet, a search is a scan.
const FLAT_TAIL_SHARE: usize = 2;
/// A search with a larger `ef` is a scan: keeping that many candidates in order costs more than measuring.
const WALK_EF_MAX: usize = 16_384;
