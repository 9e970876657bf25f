//! The index: slots, their vectors, the graph over them, and the searches.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::arena::NoMemory;
use crate::error::{IndexError, VectorError};
use crate::fast::{Coded, Fast, FastWalk, Generation};
use crate::graph::{Entry, Graph};
use crate::kernel::Kernel;
use crate::link::Linker;
use crate::params::{Hit, Metric, Params, Profile, SLOT_MAX, SearchOptions, Slot};
use crate::pool::{Pool, key};
use crate::rows::{Query, Rows};
use crate::scalar::{ScalarCodes, ScalarNear};
use crate::scratch::{Scratch, Scratches};
use crate::states::States;
use crate::walk::{Distances, Ended, Exact, Walk};

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
    scratches: Scratches,
    /// Held while a slot is stored: arenas grow under one thread.
    storing: Mutex<()>,
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
            scratches: Scratches::new(),
            storing: Mutex::default(),
            allowance: OnceLock::new(),
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

    /// Stores a vector under a slot above all those stored before; slots between are skipped for ever. The slot is
    /// live from now on and found by searches, by a scan until it is linked.
    pub fn store(&self, slot: Slot, vector: &[f32]) -> Result<(), IndexError> {
        let norm = self.params.check_vector(vector)?;
        let _storing = self.storing.lock().unwrap_or_else(PoisonError::into_inner);
        self.store_raw(slot, vector, norm, self.graph.level_of(slot))?;
        self.states.publish(slot);
        Ok(())
    }

    /// Writes a slot's row and makes room for its links, unpublished. `norm` is that of the vector.
    pub(crate) fn store_raw(&self, slot: Slot, vector: &[f32], norm: f64, level: usize) -> Result<(), IndexError> {
        let next = self.states.slots();
        if slot < next || slot > SLOT_MAX {
            return Err(IndexError::SlotOrder { slot, next });
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
            return Err(IndexError::SlotOrder { slot: last, next });
        }
        if last < next {
            return Ok(());
        }
        self.states.reserve(last)?;
        self.rows.reserve(last)?;
        if let Some(fast) = &self.fast {
            fast.reserve(last)?;
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
        if !self.states.begin_linking(slot) {
            return;
        }
        let Params { m, ef_construction, .. } = self.params;
        if let Some(scalar) = &self.scalar
            && scalar.wants_training(self.states.slots())
            && let Some(_held) = self.may_take(self.slots() * scalar.bytes_per_slot(self.params.dim))
        {
            scalar.train(&self.rows, &self.states);
            self.scratches.forget_codes();
        }
        self.scratches.with(|scratch| {
            let _held = self.fast.as_ref().map(|fast| {
                if fast.is_due(self.slots(), &mut scratch.generation)
                    && let Some(_room) = self.may_take(self.slots() * fast.bytes_per_slot())
                {
                    // Without memory for new codes the old ones serve on, and it is tried again with the next slot.
                    let _ = fast.renew(&self.rows, &self.graph, &self.states, &self.storing);
                }
                fast.hold()
            });
            let mut cached = scratch.generation.take();
            let current = self.fast.as_ref().and_then(|fast| fast.current(&mut cached)).map(Arc::as_ref);
            let is_coded = current.is_some();
            let warming = if is_coded { None } else { self.fast.as_ref().and_then(Fast::warming) };
            let generation = current.or_else(|| warming.as_ref().map(|warming| warming.generation()));
            let Self { rows, graph, states, .. } = self;
            let scalar = self.scalar.as_ref();
            Linker { rows, graph, states, generation, is_coded, scalar, m, ef_construction }.link(slot, scratch);
            scratch.generation = cached;
        });
        self.states.finish_linking(slot);
    }

    /// Makes the codes of up to so many slots of an index that was loaded, in step with links that are made meanwhile;
    /// once all are made, searches go by them. Any number of threads may do so at once, beside everything else. Whether
    /// there may be more to do.
    pub fn warm(&self, slots: usize) -> bool {
        if let Some(scalar) = &self.scalar
            && scalar.is_untrained()
            && scalar.wants_training(self.states.slots())
            && let Some(_held) = self.may_take(self.slots() * scalar.bytes_per_slot(self.params.dim))
        {
            scalar.train(&self.rows, &self.states);
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

    /// A live slot that is not in the graph, for the caller to [link](Self::link); each is handed out once.
    pub fn next_unlinked(&self) -> Option<Slot> {
        self.states.claim()
    }

    /// Number of live slots that are not in the graph yet; every search scans them.
    pub fn unlinked(&self) -> usize {
        self.states.unlinked()
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

    /// The vector of a slot, live or buried, bit by bit as it was stored.
    pub fn vector(&self, slot: Slot) -> Option<Vec<f32>> {
        (slot < self.states.slots() && self.states.is_stored(slot)).then(|| self.rows.vector(slot).to_vec())
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
        let live = self.states.live();
        let ef = options.ef.max(options.k);
        Ok(self.scratches.with(|scratch| {
            let mut aligned = std::mem::take(&mut scratch.query);
            aligned.set(query);
            let query = self.rows.query_of(aligned.get(), norm);
            let found = if scans(self, live, ef) { None } else { self.walk(query, options, ef, live, scratch) };
            let found = found.unwrap_or_else(|| self.scan(query, options, self.states.live_slots(), scratch));
            scratch.query = aligned;
            self.hits(found, options)
        }))
    }

    /// Whether looking at every slot is sooner done than a walk, which jumps about in memory for each distance.
    fn scans_sooner(&self, live: usize, ef: usize) -> bool {
        live < FLAT_LIVE_MIN || ef > WALK_EF_MAX || ef >= live / FLAT_EF_SHARE
    }

    /// The nearest by a walk, and a scan of what is not in the graph yet. `None` if it found too few, or if it became
    /// longer than a scan of everything.
    fn walk(
        &self,
        query: Query<'_>,
        options: &SearchOptions<'_>,
        ef: usize,
        live: usize,
        scratch: &mut Scratch,
    ) -> Option<Vec<(f32, Slot)>> {
        // The tail first: what leaves it meanwhile is in the graph by the time that is walked.
        let found = self.scan(query, options, self.states.tail(), scratch);
        let entry = self.graph.entry()?;
        if let Some(fast) = &self.fast {
            let mut cached = scratch.generation.take();
            let generation = fast.current(&mut cached).map(Arc::as_ref);
            let ended =
                generation.map(|generation| self.walk_fast(generation, query, options, ef, live, entry, scratch));
            scratch.generation = cached;
            match ended {
                Some(Coding::OverBudget) => return None,
                Some(Coding::Settled) => return merge(found, scratch, options.k),
                Some(Coding::Coarse) | None => {}
            }
        }
        if let Some(scalar) = &self.scalar {
            let mut codes = std::mem::take(&mut scratch.scalar);
            let near = scalar.near(&query, &mut codes);
            let ended = near.map(|near| self.walk_scalar(near, query, options, ef, live, entry, scratch));
            scratch.scalar = codes;
            match ended {
                Some(Coding::OverBudget) => return None,
                Some(Coding::Settled) => return merge(found, scratch, options.k),
                Some(Coding::Coarse) | None => {}
            }
        }
        let near = Exact { rows: &self.rows, query };
        let ended = self.walk_by(near, options, ef, live, entry, scratch);
        if ended == Ended::OverBudget {
            return None;
        }
        merge(found, scratch, options.k)
    }

    /// A walk on codes; leaves in the pool what is nearest by the vectors themselves.
    #[allow(clippy::too_many_arguments, reason = "what a search has at hand, passed on once")]
    fn walk_fast(
        &self,
        generation: &Generation,
        query: Query<'_>,
        options: &SearchOptions<'_>,
        ef: usize,
        live: usize,
        entry: Entry,
        scratch: &mut Scratch,
    ) -> Coding {
        let mut asked = std::mem::take(&mut scratch.asked);
        generation.ask(query, &mut asked);
        let near = Coded { generation, query: &asked };
        let start = Walk { graph: &self.graph, near }.descend(entry, 0, &mut scratch.batch, &mut scratch.distances);
        scratch.visited.begin(self.slots());
        scratch.visited.insert(start.1);
        scratch.pool.begin(ef);
        let walk = FastWalk { graph: &self.graph, generation };
        let ended = if options.filter.is_none() && !self.states.any_buried() {
            scratch.pool.insert(start.0, start.1, || true);
            walk.layer(&asked, scratch, usize::MAX, |_| true)
        } else {
            let is_result = |slot| self.states.is_live(slot) && options.filter.is_none_or(|filter| filter(slot));
            scratch.pool.insert(start.0, start.1, || is_result(start.1));
            walk.layer(&asked, scratch, WALK_PER_EF_MIN * ef + live / WALK_SHARE, is_result)
        };
        scratch.asked = asked;
        if ended == Ended::OverBudget {
            return Coding::OverBudget;
        }
        let Scratch { pool, batch, distances, .. } = scratch;
        batch.clear();
        let count = (options.k + options.k / 2 + RERANK_MIN).max(ef / RERANK_EF_SHARE);
        batch.extend(pool.iter().take(count).map(|(_, slot)| slot));
        distances.resize(batch.len(), 0.0);
        let first = options.k.max(RERANK_MIN).max(ef / RERANK_EF_SHARE).min(batch.len());
        batch.iter().take(first).for_each(|slot| self.rows.prefetch_all(*slot));
        self.rows.distances(query, &batch[..first], &mut distances[..first]);
        if first < batch.len() {
            // The errors of the first tell which of the rest may be nearer than those.
            let reach = generation.reach(pool.iter().map(|(distance, _)| distance), &distances[..first]);
            batch.truncate(first + pool.iter().take(batch.len()).skip(first).take_while(|(d, _)| *d <= reach).count());
            distances.truncate(batch.len());
            batch.iter().skip(first).for_each(|slot| self.rows.prefetch_all(*slot));
            self.rows.distances(query, &batch[first..], &mut distances[first..]);
        }
        if generation.is_coarse(pool.iter().map(|(distance, _)| distance), distances) {
            return Coding::Coarse;
        }
        pool.begin(options.k);
        for (distance, slot) in distances.iter().zip(batch.iter()) {
            pool.insert(*distance, *slot, || true);
        }
        Coding::Settled
    }

    /// A walk on scalar codes; leaves in the pool what is nearest by the vectors themselves. Candidates are measured by
    /// those, nearest first, for as long as that changes what the best are: where codes tell little, more is measured.
    #[allow(clippy::too_many_arguments, reason = "what a search has at hand, passed on once")]
    fn walk_scalar(
        &self,
        near: ScalarNear<'_>,
        query: Query<'_>,
        options: &SearchOptions<'_>,
        ef: usize,
        live: usize,
        entry: Entry,
        scratch: &mut Scratch,
    ) -> Coding {
        if self.walk_by(near, options, ef, live, entry, scratch) == Ended::OverBudget {
            return Coding::OverBudget;
        }
        let Scratch { pool, batch, distances, .. } = scratch;
        batch.clear();
        batch.extend(pool.iter().map(|(_, slot)| slot));
        distances.resize(batch.len(), 0.0);
        let k = options.k;
        let mut done = 0;
        while done < batch.len() {
            let next = done..batch.len().min(done + RERANK_STEP + if done == 0 { k } else { 0 });
            let (slots, distances) = (&batch[next.clone()], &mut distances[next.clone()]);
            slots.iter().for_each(|slot| self.rows.prefetch_all(*slot));
            self.rows.distances(query, slots, distances);
            if done == 0 {
                if near.is_coarse(pool.iter().map(|(distance, _)| distance), distances) {
                    return Coding::Coarse;
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
        Coding::Settled
    }

    /// A walk by any distances; leaves in the pool what is nearest by them.
    fn walk_by<D: Distances>(
        &self,
        near: D,
        options: &SearchOptions<'_>,
        ef: usize,
        live: usize,
        entry: Entry,
        scratch: &mut Scratch,
    ) -> Ended {
        let walk = Walk { graph: &self.graph, near };
        let start = walk.descend(entry, 0, &mut scratch.batch, &mut scratch.distances);
        scratch.visited.begin(self.slots());
        scratch.visited.insert(start.1);
        scratch.pool.begin(ef);
        if options.filter.is_none() && !self.states.any_buried() {
            scratch.pool.insert(start.0, start.1, || true);
            walk.layer(0, scratch, usize::MAX, |_| true)
        } else {
            let is_result = |slot| self.states.is_live(slot) && options.filter.is_none_or(|filter| filter(slot));
            scratch.pool.insert(start.0, start.1, || is_result(start.1));
            walk.layer(0, scratch, WALK_PER_EF_MIN * ef + live / WALK_SHARE, is_result)
        }
    }

    /// The nearest of these slots that pass the filter.
    fn scan(
        &self,
        query: Query<'_>,
        options: &SearchOptions<'_>,
        slots: impl Iterator<Item = Slot>,
        scratch: &mut Scratch,
    ) -> Vec<(f32, Slot)> {
        let Scratch { pool, batch, distances, .. } = scratch;
        pool.begin(options.k);
        batch.clear();
        let measure = |batch: &mut Vec<Slot>, pool: &mut Pool, distances: &mut Vec<f32>| {
            distances.resize(batch.len(), 0.0);
            self.rows.distances(query, batch, distances);
            for (distance, slot) in distances.iter().zip(batch.drain(..)) {
                pool.insert(*distance, slot, || true);
            }
        };
        for slot in slots.filter(|slot| options.filter.is_none_or(|filter| filter(*slot))) {
            batch.push(slot);
            if batch.len() == SCAN_BATCH {
                measure(batch, pool, distances);
            }
        }
        measure(batch, pool, distances);
        pool.iter().collect()
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

/// How a walk on codes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    /// What is nearest is in the pool.
    Settled,
    /// It measured as many nodes as it was allowed.
    OverBudget,
    /// The codes cannot tell apart what is nearest.
    Coarse,
}

/// What a walk and the scan of the tail found together; `None` if that is too few.
fn merge(mut found: Vec<(f32, Slot)>, scratch: &Scratch, k: usize) -> Option<Vec<(f32, Slot)>> {
    found.extend(scratch.pool.iter().take(k));
    found.sort_unstable_by_key(|(distance, slot)| key(*distance, *slot));
    found.dedup();
    (found.len() >= k).then_some(found)
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
/// A search with a larger `ef` is a scan: keeping that many candidates in order costs more than measuring.
const WALK_EF_MAX: usize = 16_384;
/// A walk through buried or refused nodes may measure this share of the live slots and so many for each of its `ef`,
/// then a scan is cheaper.
const WALK_SHARE: usize = 4;
/// See [`WALK_SHARE`].
const WALK_PER_EF_MIN: usize = 64;
/// After a walk on codes the nearest by these are measured by the vectors themselves: `k`, half as many more, and so many
/// more; and not fewer than this share of `ef`.
const RERANK_EF_SHARE: usize = 4;
/// See [`RERANK_EF_SHARE`].
const RERANK_MIN: usize = 10;
/// Candidates beyond the best `k` that are measured by their vectors at least, and so many more at a time.
const RERANK_STEP: usize = 16;
/// Slots measured at once by a scan.
const SCAN_BATCH: usize = 32;
