//! Walking layer 0 on codes.

use std::sync::atomic::Ordering;

use crate::codes::fast::{FastQuery, Generation};
use crate::kernel::fastscan::LANES;
use crate::memory::graph::Graph;
use crate::search::walk::Ended;
use crate::search::walk_memory::WalkMemory;
use crate::slot::Slot;

/// The graph, its codes, and a query to them.
#[derive(Clone, Copy)]
pub(crate) struct FastWalk<'a> {
    pub graph: &'a Graph,
    pub generation: &'a Generation,
}

impl FastWalk<'_> {
    /// Fills the pool with the nodes of layer 0 that are nearest to the query by their codes. The pool holds where to
    /// begin. `is_result` says which nodes may be results; the others are walked through.
    #[inline]
    pub fn layer(
        &self,
        query: &FastQuery,
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
            for (part, links) in self.graph.links(node, 0).chunks(LANES).enumerate() {
                let mut wanted = self.generation.estimate(query, node, part, distance, bound, &mut estimates);
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
                self.prefetch(next);
            }
            measured += batch.len();
            if measured > budget {
                return Ended::OverBudget;
            }
            distances.resize(batch.len(), 0.0);
            self.generation.distances(query, batch, distances);
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
                self.prefetch(next);
            }
        }
        Ended::Settled
    }

    #[inline(always)]
    fn prefetch(&self, slot: Slot) {
        self.graph.prefetch(slot);
        self.generation.prefetch_edges(slot);
    }
}
