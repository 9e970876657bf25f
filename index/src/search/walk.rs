//! Walking the graph towards a query: the paper's SEARCH-LAYER (algorithm 2), greedy above the layer that matters.

use crate::memory::graph::{Entry, Graph};
use crate::memory::rows::{QueryVector, Rows};
use crate::search::pool::Beam;
use crate::search::walk_memory::WalkMemory;
use crate::slot::Slot;

/// How far stored slots are from what a walk looks for; lower is nearer.
pub(crate) trait Scorer: Copy {
    /// Whether these are the distances of the vectors themselves.
    const IS_EXACT: bool = false;

    /// The distance of a vector to itself; `None` where distances have no such beginning.
    fn origin(&self) -> Option<f32>;

    /// The distances to these slots, in their order, into `out`, which is as long as `slots`.
    fn distances(&self, slots: &[Slot], out: &mut [f32]);

    /// Asks for what measuring a slot reads, ahead of it.
    fn prefetch(&self, slot: Slot);

    /// Fills the pool with the nodes of a layer that are nearest to the query. The pool holds where to begin. `is_result`
    /// says which nodes may be results; the others are walked through. Codes that know a node's neighbours do it otherwise.
    #[inline]
    fn layer(
        &self,
        graph: &Graph,
        layer: usize,
        memory: &mut WalkMemory,
        budget: usize,
        is_result: impl Fn(Slot) -> bool,
    ) -> Ended {
        Walk { graph, scorer: *self }.layer(layer, memory, budget, is_result)
    }

    /// Whether these distances of some slots are too far from the exact ones to go by: what was looked for lies so near
    /// together, seen from everything else, that its codes cannot tell it apart.
    fn is_coarse(&self, coded: impl Iterator<Item = f32> + Clone, exact: &[f32]) -> bool;

    /// Leaves in the pool, which a walk with `ef` has filled, what is nearest by the vectors themselves: `k` at least, if there
    /// are as many. False if the codes are too coarse; then the pool holds anything.
    fn rank(&self, rows: &Rows, query: QueryVector<'_>, k: usize, ef: usize, memory: &mut WalkMemory) -> bool;
}

/// The graph, and the distances that a walk goes by.
#[derive(Clone, Copy)]
pub(crate) struct Walk<'a, D> {
    pub graph: &'a Graph,
    pub scorer: D,
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Nothing nearer is left to look at.
    Settled,
    /// It measured as many nodes as it was allowed.
    OverBudget,
}

impl<D: Scorer> Walk<'_, D> {
    /// Goes from the entry down to `layer` + 1, on each layer to the node that has no nearer neighbour; gives the
    /// last, and its distance.
    pub fn descend(&self, entry: Entry, layer: usize, batch: &mut Vec<Slot>, distances: &mut Vec<f32>) -> (f32, Slot) {
        let mut nearest = (self.distance(entry.slot), entry.slot);
        for layer in (layer + 1..=entry.level).rev() {
            loop {
                batch.clear();
                batch.extend(self.graph.neighbours(nearest.1, layer));
                batch.iter().for_each(|slot| self.graph.prefetch_upper(*slot));
                distances.resize(batch.len(), 0.0);
                self.scorer.distances(batch, distances);
                let better = distances.iter().copied().zip(batch.iter().copied()).min_by(|a, b| a.0.total_cmp(&b.0));
                match better {
                    Some(better) if better.0 < nearest.0 => nearest = better,
                    _ => break,
                }
            }
        }
        nearest
    }

    /// Puts into the pool where a walk of layer 0 that goes so far begins: what [`Self::descend`] leads to, and the entry, from
    /// which every node can be reached.
    pub fn begin(
        &self,
        entry: Entry,
        beam: Beam,
        slots: usize,
        memory: &mut WalkMemory,
        is_result: impl Fn(Slot) -> bool,
    ) {
        let start = self.descend(entry, 0, &mut memory.batch, &mut memory.distances);
        let WalkMemory { pool, visited, .. } = memory;
        pool.begin_walk(beam);
        visited.begin(slots);
        for (distance, slot) in [start, (self.distance(entry.slot), entry.slot)] {
            if visited.insert(slot) {
                pool.insert(distance, slot, || is_result(slot));
            }
        }
    }

    /// Fills the pool with the nodes of a layer that are nearest to the query. The pool holds where to begin.
    /// `is_result` says which nodes may be results; the others are walked through.
    #[inline]
    pub fn layer(
        &self,
        layer: usize,
        memory: &mut WalkMemory,
        budget: usize,
        is_result: impl Fn(Slot) -> bool,
    ) -> Ended {
        let WalkMemory { pool, visited, batch, distances } = memory;
        let mut measured = 0;
        while let Some((distance, node)) = pool.expand() {
            let bound = pool.bound();
            if distance > bound {
                break;
            }
            batch.clear();
            // Two at a time: what the second leads to is fetched while the first is waited for.
            let second = pool.expand().filter(|(distance, _)| *distance <= bound);
            for node in std::iter::once(node).chain(second.map(|(_, node)| node)) {
                for neighbour in self.graph.neighbours(node, layer) {
                    if visited.insert(neighbour) {
                        self.scorer.prefetch(neighbour);
                        batch.push(neighbour);
                    }
                }
            }
            measured += batch.len();
            if measured > budget {
                return Ended::OverBudget;
            }
            if let (0, Some(next)) = (layer, pool.peek()) {
                self.graph.prefetch(next);
            }
            distances.resize(batch.len(), 0.0);
            self.scorer.distances(batch, distances);
            let nearest = distances.iter().zip(batch.iter()).min_by(|a, b| a.0.total_cmp(b.0));
            if let (0, Some((_, nearest))) = (layer, nearest) {
                self.graph.prefetch(*nearest);
            }
            for (distance, slot) in distances.iter().zip(batch.iter()) {
                if *distance <= bound {
                    pool.insert(*distance, *slot, || is_result(*slot));
                }
            }
        }
        Ended::Settled
    }

    /// The distance from the query to one node.
    pub fn distance(&self, slot: Slot) -> f32 {
        let mut distance = [0.0];
        self.scorer.distances(&[slot], &mut distance);
        distance[0]
    }
}
