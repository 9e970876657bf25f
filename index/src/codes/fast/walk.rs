//! Walking layer 0 on codes.

use std::sync::atomic::Ordering;

use crate::codes::fast::{FastQuery, Generation};
use crate::kernel::fastscan::LANES;
use crate::memory::graph::Graph;
use crate::memory::rows::{QueryVector, Rows};
use crate::search::walk::{Ended, Scorer, Walk};
use crate::search::walk_memory::WalkMemory;
use crate::slot::Slot;

/// After a walk at least this share of `ef` is measured by the vectors themselves.
const RERANK_EF_SHARE: usize = 4;
/// After a walk `k`, half as many more and this many more are measured by the vectors themselves.
const RERANK_MIN: usize = 10;

/// Distances by the codes of nodes, and estimates by those of edges.
#[derive(Clone, Copy)]
pub(crate) struct Coded<'a> {
    pub generation: &'a Generation,
    pub query: &'a FastQuery,
}

impl Scorer for Coded<'_> {
    fn origin(&self) -> Option<f32> {
        self.generation.origin()
    }

    #[inline]
    fn distances(&self, slots: &[Slot], out: &mut [f32]) {
        self.generation.distances(self.query, slots, out);
    }

    #[inline(always)]
    fn prefetch(&self, slot: Slot) {
        self.generation.prefetch_node(slot);
    }

    #[inline]
    fn layer(
        &self,
        graph: &Graph,
        layer: usize,
        memory: &mut WalkMemory,
        budget: usize,
        is_result: impl Fn(Slot) -> bool,
    ) -> Ended {
        match layer {
            0 => self.base_layer(graph, memory, budget, is_result),
            _ => Walk { graph, scorer: *self }.layer(layer, memory, budget, is_result),
        }
    }

    fn is_coarse(&self, coded: impl Iterator<Item = f32> + Clone, exact: &[f32]) -> bool {
        self.generation.is_coarse(coded, exact)
    }

    fn rank(&self, rows: &Rows, query: QueryVector<'_>, k: usize, ef: usize, memory: &mut WalkMemory) -> bool {
        let WalkMemory { pool, batch, distances, .. } = memory;
        batch.clear();
        let count = (k + k / 2 + RERANK_MIN).max(ef / RERANK_EF_SHARE);
        batch.extend(pool.iter().take(count).map(|(_, slot)| slot));
        distances.resize(batch.len(), 0.0);
        let first = k.max(RERANK_MIN).max(ef / RERANK_EF_SHARE).min(batch.len());
        batch.iter().take(first).for_each(|slot| rows.prefetch_all(*slot));
        rows.distances(query, &batch[..first], &mut distances[..first]);
        if first < batch.len() {
            // The errors of the first tell which of the rest may be nearer than those.
            let reach = self.generation.reach(pool.iter().map(|(distance, _)| distance), &distances[..first]);
            batch.truncate(first + pool.iter().take(batch.len()).skip(first).take_while(|(d, _)| *d <= reach).count());
            distances.truncate(batch.len());
            batch.iter().skip(first).for_each(|slot| rows.prefetch_all(*slot));
            rows.distances(query, &batch[first..], &mut distances[first..]);
        }
        if self.generation.is_coarse(pool.iter().map(|(distance, _)| distance), distances) {
            return false;
        }
        pool.begin(k);
        for (distance, slot) in distances.iter().zip(batch.iter()) {
            pool.insert(*distance, *slot, || true);
        }
        true
    }
}

impl Coded<'_> {
    /// Fills the pool with the nodes of layer 0 that are nearest to the query by their codes, of which estimates tell which
    /// may be near.
    #[inline]
    fn base_layer(
        &self,
        graph: &Graph,
        memory: &mut WalkMemory,
        budget: usize,
        is_result: impl Fn(Slot) -> bool,
    ) -> Ended {
        let WalkMemory { pool, visited, batch, distances } = memory;
        let mut measured = 0;
        let mut estimates = [0.0f32; LANES];
        // The node to expand next is chosen before the neighbours of this one are measured, so that its codes are under
        // way meanwhile; a nearer one that comes of them is next but one.
        let mut ahead = pool.expand();
        let mut warm = Slot::MAX;
        let mut bound = pool.bound();
        while let Some((distance, node)) = ahead {
            if distance > bound {
                ahead = pool.expand();
                if ahead.is_none_or(|(distance, _)| distance > bound) {
                    break;
                }
                continue;
            }
            batch.clear();
            for (part, links) in graph.links(node, 0).chunks(LANES).enumerate() {
                let mut wanted = self.generation.estimate(self.query, node, part, distance, bound, &mut estimates);
                let mut count = batch.len();
                batch.resize(count + LANES, 0);
                while wanted != 0 {
                    let lane = wanted.trailing_zeros() as usize;
                    wanted &= wanted - 1;
                    let link = links.get(lane).map_or(0, |link| link.load(Ordering::Acquire));
                    if link == 0 {
                        break;
                    }
                    // Whether it was seen before is hard to foretell, so no jump depends on it.
                    self.generation.prefetch_node(link - 1);
                    batch[count] = link - 1;
                    count += usize::from(visited.insert(link - 1));
                }
                batch.truncate(count);
            }
            ahead = pool.expand();
            if let Some((_, next)) = ahead.filter(|(_, next)| *next != warm) {
                self.prefetch_node(graph, next);
            }
            measured += batch.len();
            if measured > budget {
                return Ended::OverBudget;
            }
            distances.resize(batch.len(), 0.0);
            self.generation.distances(self.query, batch, distances);
            for (distance, slot) in distances.iter().zip(batch.iter()) {
                if *distance <= bound {
                    pool.insert(*distance, *slot, || is_result(*slot));
                }
            }
            bound = pool.bound();
            if ahead.is_none() {
                ahead = pool.expand();
            }
            if let Some(next) = pool.peek() {
                warm = next;
                self.prefetch_node(graph, next);
            }
        }
        Ended::Settled
    }

    #[inline(always)]
    fn prefetch_node(&self, graph: &Graph, slot: Slot) {
        graph.prefetch(slot);
        self.generation.prefetch_edges(slot);
    }
}
