//! The index: slots, their vectors, the graph over them, and the searches.

use std::sync::{Mutex, OnceLock, PoisonError};

use crate::build::concurrent_inserts::ConcurrentInserts;
use crate::build::consolidate::{Rounds, Share};
use crate::codes::codec::Stored;
use crate::error::{IndexError, VectorError};
use crate::kernel::Kernel;
use crate::memory::arena::NoMemory;
use crate::memory::readers::Reading;
use crate::params::{Hit, Params, SearchOptions};
use crate::parts::Parts;
use crate::search::flat::Flat;
use crate::search::hnsw::Hnsw;
use crate::search::searcher::{Query, Searcher};
use crate::slot::{SLOT_MAX, Slot};

/// Fewer slots than this are scanned, be it all live ones or the members of a filter.
const FLAT_LIVE_MIN: usize = 1_000;
/// A search whose `ef` is this share of the live slots is a scan: a walk would measure most of them anyway.
const FLAT_EF_SHARE: usize = 16;
/// Where more than this share of the live slots is not in the graph yet, a search is a scan.
const FLAT_TAIL_SHARE: usize = 2;
/// A search with a larger `ef` is a scan: keeping that many candidates in order costs more than measuring.
const WALK_EF_MAX: usize = 16_384;

/// Vectors by slot, found by nearness. All methods take `&self`: any number of threads search, link and delete while
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
    pub(crate) parts: Parts,
    pub(crate) rounds: Rounds,
    inserts: ConcurrentInserts,
    flat_live_max: usize,
    /// Held while a slot is stored: arenas grow under one thread.
    pub(crate) storing: Mutex<()>,
    allowance: OnceLock<Box<Allowance>>,
}

/// Whether an index may take this many bytes more; it has them until it drops what it is given.
pub type Allowance = dyn Fn(usize) -> Option<Box<dyn Send + Sync>> + Send + Sync;

impl Index {
    /// An empty index. It takes next to no memory until the first slot is stored.
    pub fn new(params: Params) -> Result<Self, IndexError> {
        let kernel = params.check()?;
        Ok(Self {
            flat_live_max: params.flat_slots(),
            parts: Parts::new(params, kernel),
            rounds: Rounds::new(),
            inserts: ConcurrentInserts::default(),
            storing: Mutex::default(),
            allowance: OnceLock::new(),
        })
    }

    /// What the index was made with.
    pub fn params(&self) -> &Params {
        &self.parts.params
    }

    /// The kernel that computes its distances.
    pub fn kernel(&self) -> Kernel {
        self.parts.kernel
    }

    /// Checks a vector that is to be stored or searched for: its dimension, that every value is finite, and that its
    /// norm is one that distances can be computed with.
    pub fn validate(&self, vector: &[f32]) -> Result<(), VectorError> {
        self.parts.params.check_vector(vector).map(|_| ())
    }

    /// Stores a vector under a slot that is [vacant](Self::is_vacant): above all those stored before, skipped by them, or
    /// [handed out](Self::take_vacant) to be used again. The slot is live from now on and found by searches, by a scan
    /// until it is linked.
    pub fn store(&self, slot: Slot, vector: &[f32]) -> Result<(), IndexError> {
        let norm = self.parts.params.check_vector(vector)?;
        self.store_checked(slot, vector, norm)
    }

    /// As [`Self::store`], for a vector that the caller has checked by the rule of [`Self::validate`], and whose Euclidean norm
    /// it has from that: the sum of the squares in f64, first to last, under a root.
    pub fn store_checked(&self, slot: Slot, vector: &[f32], norm: f64) -> Result<(), IndexError> {
        debug_assert_eq!(self.parts.params.check_vector(vector), Ok(norm), "the vector was not checked");
        let _storing = self.storing.lock().unwrap_or_else(PoisonError::into_inner);
        self.store_raw(slot, vector, norm, self.parts.graph.level_of(slot))?;
        self.parts.states.publish(slot);
        Ok(())
    }

    /// Writes a slot's row and makes room for its links, unpublished. `norm` is that of the vector.
    pub(crate) fn store_raw(&self, slot: Slot, vector: &[f32], norm: f64, level: usize) -> Result<(), IndexError> {
        if slot > SLOT_MAX || !self.is_vacant(slot) {
            return Err(IndexError::SlotTaken { slot, next: self.parts.states.slots() });
        }
        self.parts.states.reserve(slot)?;
        self.parts.rows.store(slot, vector, norm)?;
        self.parts.codes.store(slot, &self.parts.rows)?;
        self.parts.graph.reserve(slot, level)?;
        Ok(())
    }

    /// Makes room for every slot that was never stored, up to and with this one: storing them then asks the system for no
    /// more memory, so that what has to be stored can be known to have room before anybody is told so.
    pub fn reserve(&self, last: Slot) -> Result<(), IndexError> {
        let _storing = self.storing.lock().unwrap_or_else(PoisonError::into_inner);
        let next = self.parts.states.slots();
        if last > SLOT_MAX {
            return Err(IndexError::SlotTaken { slot: last, next });
        }
        if last < next {
            return Ok(());
        }
        self.parts.states.reserve(last)?;
        self.parts.rows.reserve(last)?;
        self.parts.codes.reserve(last)?;
        self.parts.graph.reserve_range(next, last)?;
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
        self.bytes_per_slot_uncoded() + self.parts.codes.bytes_per_slot()
    }

    /// The same without codes: what an index takes at least.
    pub fn bytes_per_slot_uncoded(&self) -> usize {
        self.parts.rows.bytes(1) + self.parts.graph.bytes_per_slot() + self.parts.states.bytes(1)
    }

    /// Inserts a stored slot into the graph. Any number of threads may do so at once; a slot that is linked, being
    /// linked, deleted or not stored is left as it is.
    pub fn link(&self, slot: Slot) {
        let _held = self.rounds.hold();
        let _reading = self.reading();
        if !self.parts.states.begin_linking(slot) {
            return;
        }
        if self.parts.codes.is_due(self.parts.states.slots()) {
            self.renew_codes();
        }
        // Linked before codes are let go of: a thread that makes all codes anew makes those of linked slots.
        self.parts.with_linker(|linker, scratch| {
            let entered = self.inserts.enter(slot);
            linker.link(slot, scratch);
            self.parts.states.finish_linking(slot);
            linker.meet(slot, &entered.leave(), scratch);
        });
        if self.parts.growth.is_due(self.parts.states.live().saturating_sub(self.parts.states.unlinked())) {
            self.parts.measure_growth();
        }
    }

    /// Makes the codes of up to `slots` slots of an index that was loaded, in step with links that are made meanwhile;
    /// once all are made, searches go by them. Any number of threads may do so at once, beside everything else. Whether
    /// there may be more to do.
    pub fn warm(&self, slots: usize) -> bool {
        let _held = self.rounds.hold();
        let _reading = self.reading();
        if self.parts.codes.is_due_at_once(self.parts.states.slots()) {
            self.renew_codes();
        }
        self.parts.codes.warm(self.stored(), slots)
    }

    /// Makes codes anew, if there may be memory for them. The caller is counted among the readers.
    fn renew_codes(&self) {
        if let Some(_room) = self.may_take(self.slots() * self.parts.codes.bytes_per_slot()) {
            self.parts.codes.renew(self.stored());
            self.parts.scratches.forget_codes();
        }
    }

    /// What codes are made of.
    fn stored(&self) -> Stored<'_> {
        let Parts { rows, graph, states, .. } = &self.parts;
        Stored { rows, graph, states, storing: &self.storing }
    }

    /// How many of the slots that were loaded have their codes, and of how many, while not all have.
    pub fn warming(&self) -> Option<(usize, usize)> {
        let slots = self.parts.states.slots();
        if self.parts.codes.is_due_at_once(slots) {
            return Some((0, slots as usize));
        }
        self.parts.codes.warming()
    }

    /// While what is returned lives, every slot that a search has given or that is in use keeps its vector, even if it is
    /// deleted: no slot is stored again that was not vacant when this was called. It costs next to nothing, and it makes
    /// nobody wait; but held for long, it lets slots be used up.
    pub fn reading(&self) -> Reading<'_> {
        self.parts.readers.enter()
    }

    /// A live slot that is not in the graph, for the caller to [link](Self::link); each is handed out once. None while
    /// there are so few that no graph is made of them: see [`Params::flat_live_max`].
    pub fn next_unlinked(&self) -> Option<Slot> {
        if self.has_graph() { self.parts.states.claim() } else { None }
    }

    /// Number of live slots that are to be in the graph and are not yet; every search scans them.
    pub fn unlinked(&self) -> usize {
        if self.has_graph() { self.parts.states.unlinked() } else { 0 }
    }

    /// Takes a slot out of the results of every search that begins from now on. Walks still lead through it.
    pub fn mark_deleted(&self, slot: Slot) {
        self.parts.states.mark_deleted(slot);
    }

    /// Does a bounded part of what takes deleted slots out of the graph, if there are enough of them: looks at up to
    /// `nodes` nodes. Any number of threads may call it. Whether there is more to do now.
    ///
    /// Slots that were taken out are handed out by [`Self::take_vacant`] once nobody reads them any more.
    pub fn consolidate(&self, nodes: usize) -> bool {
        self.rounds.consolidate(&self.parts, nodes, Share::Busy)
    }

    /// The same where nothing else is to be done: takes out what is deleted even if it is only a few. Walks go through
    /// those too, which costs them more than their share.
    pub fn consolidate_idle(&self, nodes: usize) -> bool {
        self.rounds.consolidate(&self.parts, nodes, Share::Idle)
    }

    /// Whether so little is deleted that [`Self::consolidate_idle`] leaves it as it is.
    pub fn is_consolidated(&self) -> bool {
        !Share::Idle.is_reached(&self.parts)
    }

    /// Slots that may be stored again: they were deleted, have left the graph, and nobody reads them. Each is handed out
    /// once, to be [stored](Self::store) at any time.
    pub fn take_vacant(&self) -> Vec<Slot> {
        self.rounds.take_vacant(&self.parts)
    }

    /// Whether a slot holds no vector, and nobody reads what it may have held: it can be stored.
    pub fn is_vacant(&self, slot: Slot) -> bool {
        slot >= self.parts.states.slots() || self.parts.states.is_vacant(slot)
    }

    /// Number of slots that are deleted and wait to be taken out of the graph.
    pub fn deleted(&self) -> usize {
        self.parts.states.deleted()
    }

    /// Whether a slot is stored and not deleted.
    pub fn is_live(&self, slot: Slot) -> bool {
        slot < self.parts.states.slots() && self.parts.states.is_live(slot)
    }

    /// Number of live slots.
    pub fn len_live(&self) -> usize {
        self.parts.states.live()
    }

    /// One more than the highest slot stored.
    pub fn slots(&self) -> usize {
        self.parts.states.slots() as usize
    }

    /// The vector of a slot, live or deleted, bit by bit as it was stored. A caller that has been [reading](Self::reading)
    /// since before it learned of the slot gets the vector that the slot had then. To any other caller a slot that was
    /// deleted gives that vector, one that was stored there since, or values of both.
    pub fn vector(&self, slot: Slot) -> Option<Vec<f32>> {
        (slot < self.parts.states.slots() && self.parts.states.is_stored(slot)).then(|| self.parts.rows.copy(slot))
    }

    /// The best hits, best first, ties by slot. Small indexes and wide searches are answered by a scan, the others by
    /// a walk; where that finds fewer than `k`, because most of what is near is deleted or refused by the filter, a
    /// scan makes up for it: there are `k` hits whenever `k` live slots pass the filter and the threshold.
    pub fn search(&self, query: &[f32], options: &SearchOptions<'_>) -> Result<Vec<Hit>, IndexError> {
        let is_few = options.filter.is_some_and(|filter| filter.estimate() < FLAT_LIVE_MIN);
        self.answer(query, options, |index, live, ef| is_few || index.scans_sooner(live, ef))
    }

    /// The best hits by looking at every live slot: the oracle.
    pub fn search_exact(&self, query: &[f32], options: &SearchOptions<'_>) -> Result<Vec<Hit>, IndexError> {
        self.answer(query, options, |_, _, _| true)
    }

    /// Bytes of memory that the index holds for its slots.
    pub fn memory_bytes(&self) -> usize {
        let slots = self.slots();
        self.parts.rows.bytes(slots)
            + self.parts.graph.bytes(slots)
            + self.parts.states.bytes(slots)
            + self.parts.codes.bytes(slots)
    }

    /// Searches; `scans` decides between scan and walk by the number of live slots and `ef`.
    pub(crate) fn answer(
        &self,
        query: &[f32],
        options: &SearchOptions<'_>,
        scans: impl FnOnce(&Self, usize, usize) -> bool,
    ) -> Result<Vec<Hit>, IndexError> {
        options.check()?;
        let norm = self.parts.params.check_vector(query)?;
        let _reading = self.reading();
        let live = self.parts.states.live();
        let ef = options.ef.max(options.k);
        Ok(self.parts.scratches.with(|scratch| {
            let mut aligned = std::mem::take(&mut scratch.query);
            aligned.set(query);
            let query = Query { vector: self.parts.rows.query_of(aligned.get(), norm), options, ef, live };
            let searcher: &dyn Searcher = if scans(self, live, ef) { &Flat(&self.parts) } else { &Hnsw(&self.parts) };
            let found = searcher.nearest(query, scratch).or_else(|| Flat(&self.parts).nearest(query, scratch));
            scratch.query = aligned;
            self.hits(found.unwrap_or_default(), options)
        }))
    }

    /// Whether looking at every slot is sooner done than a walk, which jumps about in memory for each distance.
    fn scans_sooner(&self, live: usize, ef: usize) -> bool {
        live < FLAT_LIVE_MIN
            || ef > WALK_EF_MAX
            || ef >= live / FLAT_EF_SHARE
            || self.parts.states.unlinked() > live / FLAT_TAIL_SHARE
    }

    /// Whether there is a graph, or enough for one.
    fn has_graph(&self) -> bool {
        self.parts.graph.entry().is_some() || self.parts.states.live() > self.flat_live_max
    }

    /// What the caller is told of what was found.
    fn hits(&self, found: Vec<(f32, Slot)>, options: &SearchOptions<'_>) -> Vec<Hit> {
        let higher_is_better = self.parts.params.metric.higher_is_better();
        let passes = |hit: &Hit| match options.threshold {
            None => true,
            Some(least) if higher_is_better => hit.score >= least,
            Some(most) => hit.score <= most,
        };
        let score = |(distance, slot)| Hit { slot, score: self.parts.rows.score(distance) };
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
