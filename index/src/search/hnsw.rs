//! Walking the graph: by codes where there are some, and what they find is measured by the vectors themselves.

use std::sync::Arc;

use crate::codes::fast::{Coded, FastWalk, Generation};
use crate::codes::scalar::ScalarNear;
use crate::memory::graph::Entry;
use crate::parts::Parts;
use crate::search::flat::Flat;
use crate::search::kind::{Ask, Kind};
use crate::search::pool::key;
use crate::search::scratch::Scratch;
use crate::search::walk::{Distances, Ended, Exact, Walk};
use crate::search::walk_memory::WalkMemory;
use crate::slot::Slot;

/// The graph of an index, and the slots that are not in it yet.
pub(crate) struct Hnsw<'a>(pub &'a Parts);

impl Kind for Hnsw<'_> {
    /// The nearest by a walk, and a scan of what is not in the graph yet. `None` if it found too few, or if it became
    /// longer than a scan of everything.
    fn nearest(&self, ask: Ask<'_>, scratch: &mut Scratch) -> Option<Vec<(f32, Slot)>> {
        // The tail first: what leaves it meanwhile is in the graph by the time that is walked.
        let found = Flat(self.0).scan(ask, self.0.states.tail(), scratch);
        self.walk(ask, found, scratch)
    }
}

impl Hnsw<'_> {
    /// The nearest by a walk, and of those that were found elsewhere. `None` if they are too few, or if the walk became longer
    /// than a scan of everything.
    pub fn walk(&self, ask: Ask<'_>, found: Vec<(f32, Slot)>, scratch: &mut Scratch) -> Option<Vec<(f32, Slot)>> {
        let Self(parts) = self;
        let k = ask.options.k;
        let entry = parts.graph.entry()?;
        if let Some(fast) = &parts.fast {
            let mut cached = scratch.generation.take();
            let generation = fast.current(&mut cached).map(Arc::as_ref);
            let ended = generation.map(|generation| self.walk_fast(generation, ask, entry, scratch));
            fast.keep_cached(cached, &mut scratch.generation);
            match ended {
                Some(Coding::OverBudget) => return None,
                Some(Coding::Settled) => return merge(found, scratch, k),
                Some(Coding::Coarse) | None => {}
            }
        }
        if let Some(scalar) = &parts.scalar {
            let mut codes = std::mem::take(&mut scratch.scalar);
            let near = scalar.near(&ask.query, &mut codes);
            let ended = near.map(|near| self.walk_scalar(near, ask, entry, scratch));
            scratch.scalar = codes;
            match ended {
                Some(Coding::OverBudget) => return None,
                Some(Coding::Settled) => return merge(found, scratch, k),
                Some(Coding::Coarse) | None => {}
            }
        }
        let near = Exact { rows: &parts.rows, query: ask.query };
        let ended = self.walk_by(near, ask, entry, scratch);
        if ended == Ended::OverBudget {
            return None;
        }
        merge(found, scratch, k)
    }

    /// A walk on codes; leaves in the pool what is nearest by the vectors themselves.
    fn walk_fast(&self, generation: &Generation, ask: Ask<'_>, entry: Entry, scratch: &mut Scratch) -> Coding {
        let Ask { query, options, ef, live } = ask;
        let mut asked = std::mem::take(&mut scratch.asked);
        generation.ask(query, &mut asked);
        let near = Coded { generation, query: &asked };
        let (begin, walk) = (Walk { graph: &self.0.graph, near }, FastWalk { graph: &self.0.graph, generation });
        let breadth = self.0.growth.breadth(options.k, ef, near.origin());
        let ended = if options.filter.is_none() && !self.0.states.any_buried() {
            begin.begin(entry, breadth, self.0.slots(), &mut scratch.memory, |_| true);
            walk.layer(&asked, &mut scratch.memory, usize::MAX, |_| true)
        } else {
            let is_result =
                |slot| self.0.states.is_live(slot) && options.filter.is_none_or(|filter| filter.contains(slot));
            begin.begin(entry, breadth, self.0.slots(), &mut scratch.memory, is_result);
            walk.layer(&asked, &mut scratch.memory, WALK_PER_EF_MIN * ef + live / WALK_SHARE, is_result)
        };
        scratch.asked = asked;
        if ended == Ended::OverBudget {
            return Coding::OverBudget;
        }
        let WalkMemory { pool, batch, distances, .. } = &mut scratch.memory;
        batch.clear();
        let count = (options.k + options.k / 2 + RERANK_MIN).max(ef / RERANK_EF_SHARE);
        batch.extend(pool.iter().take(count).map(|(_, slot)| slot));
        distances.resize(batch.len(), 0.0);
        let first = options.k.max(RERANK_MIN).max(ef / RERANK_EF_SHARE).min(batch.len());
        batch.iter().take(first).for_each(|slot| self.0.rows.prefetch_all(*slot));
        self.0.rows.distances(query, &batch[..first], &mut distances[..first]);
        if first < batch.len() {
            // The errors of the first tell which of the rest may be nearer than those.
            let reach = generation.reach(pool.iter().map(|(distance, _)| distance), &distances[..first]);
            batch.truncate(first + pool.iter().take(batch.len()).skip(first).take_while(|(d, _)| *d <= reach).count());
            distances.truncate(batch.len());
            batch.iter().skip(first).for_each(|slot| self.0.rows.prefetch_all(*slot));
            self.0.rows.distances(query, &batch[first..], &mut distances[first..]);
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
    fn walk_scalar(&self, near: ScalarNear<'_>, ask: Ask<'_>, entry: Entry, scratch: &mut Scratch) -> Coding {
        if self.walk_by(near, ask, entry, scratch) == Ended::OverBudget {
            return Coding::OverBudget;
        }
        let WalkMemory { pool, batch, distances, .. } = &mut scratch.memory;
        batch.clear();
        batch.extend(pool.iter().map(|(_, slot)| slot));
        distances.resize(batch.len(), 0.0);
        let (query, k) = (ask.query, ask.options.k);
        let mut done = 0;
        while done < batch.len() {
            let next = done..batch.len().min(done + RERANK_STEP + if done == 0 { k } else { 0 });
            let (slots, distances) = (&batch[next.clone()], &mut distances[next.clone()]);
            slots.iter().for_each(|slot| self.0.rows.prefetch_all(*slot));
            self.0.rows.distances(query, slots, distances);
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
        Ask { options, ef, live, .. }: Ask<'_>,
        entry: Entry,
        scratch: &mut Scratch,
    ) -> Ended {
        let breadth = self.0.growth.breadth(options.k, ef, near.origin());
        let walk = Walk { graph: &self.0.graph, near };
        if options.filter.is_none() && !self.0.states.any_buried() {
            walk.begin(entry, breadth, self.0.slots(), &mut scratch.memory, |_| true);
            walk.layer(0, &mut scratch.memory, usize::MAX, |_| true)
        } else {
            let is_result =
                |slot| self.0.states.is_live(slot) && options.filter.is_none_or(|filter| filter.contains(slot));
            walk.begin(entry, breadth, self.0.slots(), &mut scratch.memory, is_result);
            walk.layer(0, &mut scratch.memory, WALK_PER_EF_MIN * ef + live / WALK_SHARE, is_result)
        }
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
    found.extend(scratch.memory.pool.iter().take(k));
    found.sort_unstable_by_key(|(distance, slot)| key(*distance, *slot));
    found.dedup();
    (found.len() >= k).then_some(found)
}

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
