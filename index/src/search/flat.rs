//! Looking at every slot: exact, and for few of them the quickest way too.

use crate::parts::Parts;
use crate::search::pool::Pool;
use crate::search::scratch::Scratch;
use crate::search::searcher::{Query, Searcher};
use crate::search::walk_memory::WalkMemory;
use crate::slot::Slot;

/// Slots measured at once by a scan.
const SCAN_BATCH: usize = 32;

/// The slots of an index, without its graph.
pub(crate) struct Flat<'a>(pub &'a Parts);

impl Searcher for Flat<'_> {
    fn nearest(&self, query: Query<'_>, scratch: &mut Scratch) -> Option<Vec<(f32, Slot)>> {
        let states = &self.0.states;
        let Some(filter) = query.options.filter.filter(|filter| filter.estimate() < query.live) else {
            return Some(self.scan(query, states.live_slots(), scratch));
        };
        let slots = states.slots();
        let members = filter.iter().take_while(|slot| *slot < slots).filter(|slot| states.is_live(*slot));
        Some(self.scan_members(query, members, scratch))
    }
}

impl Flat<'_> {
    /// The nearest of these slots that pass the filter.
    pub fn scan(&self, query: Query<'_>, slots: impl Iterator<Item = Slot>, scratch: &mut Scratch) -> Vec<(f32, Slot)> {
        match query.options.filter {
            None => self.scan_members(query, slots, scratch),
            Some(filter) => self.scan_members(query, slots.filter(|slot| filter.contains(*slot)), scratch),
        }
    }

    /// The nearest of these slots, all of which pass the filter.
    fn scan_members(
        &self,
        Query { vector, options, .. }: Query<'_>,
        slots: impl Iterator<Item = Slot>,
        scratch: &mut Scratch,
    ) -> Vec<(f32, Slot)> {
        let WalkMemory { pool, batch, distances, .. } = &mut scratch.memory;
        pool.begin(options.k);
        batch.clear();
        let measure = |batch: &mut Vec<Slot>, pool: &mut Pool, distances: &mut Vec<f32>| {
            distances.resize(batch.len(), 0.0);
            self.0.rows.distances(vector, batch, distances);
            for (distance, slot) in distances.iter().zip(batch.drain(..)) {
                pool.insert(*distance, slot, || true);
            }
        };
        for slot in slots {
            batch.push(slot);
            if batch.len() == SCAN_BATCH {
                measure(batch, pool, distances);
                if options.is_stopped() {
                    break;
                }
            }
        }
        measure(batch, pool, distances);
        pool.iter().collect()
    }
}
