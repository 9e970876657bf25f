//! Walking the graph: by codes where there are some, and what they find is measured by the vectors themselves.

use crate::codes::chosen::Codes;
use crate::codes::codec::Codec;
use crate::codes::plain::Plain;
use crate::memory::graph::Entry;
use crate::parts::Parts;
use crate::search::flat::Flat;
use crate::search::pool::{Pool, key};
use crate::search::scratch::Scratch;
use crate::search::searcher::{Query, Searcher};
use crate::search::walk::{Ended, Scorer, Walk};
use crate::search::walk_memory::WalkMemory;
use crate::slot::Slot;

/// A walk through deleted or refused nodes may measure this share of the live slots, and [`WALK_PER_EF_MIN`] more for each of
/// its `ef`; then a scan is cheaper.
const WALK_SHARE: usize = 4;
/// Nodes that a walk may measure for each of its `ef`, beside [`WALK_SHARE`].
const WALK_PER_EF_MIN: usize = 64;

/// The graph of an index, and the slots that are not in it yet.
pub(crate) struct Hnsw<'a>(pub &'a Parts);

impl Searcher for Hnsw<'_> {
    /// The nearest by a walk, and a scan of what is not in the graph yet. `None` if it found too few, or if it became
    /// longer than a scan of everything.
    fn nearest(&self, query: Query<'_>, scratch: &mut Scratch) -> Option<Vec<(f32, Slot)>> {
        // The tail first: what leaves it meanwhile is in the graph by the time that is walked.
        let found = Flat(self.0).scan(query, self.0.states.tail(), scratch);
        self.walk(query, found, scratch)
    }
}

impl Hnsw<'_> {
    /// The nearest by a walk, and of those that were found elsewhere. `None` if they are too few, or if the walk became longer
    /// than a scan of everything.
    pub fn walk(&self, query: Query<'_>, found: Vec<(f32, Slot)>, scratch: &mut Scratch) -> Option<Vec<(f32, Slot)>> {
        let entry = self.0.graph.entry()?;
        let Scratch { memory, codes, .. } = scratch;
        let found_by_codes = match &self.0.codes {
            Codes::Plain(_) => None,
            Codes::Fast(codec) => self.walk_by(codec, &mut codes.fast, query, entry, memory),
            Codes::Scalar(codec) => self.walk_by(codec, &mut codes.scalar, query, entry, memory),
        };
        let is_found = match found_by_codes {
            None => self.walk_by(&Plain, &mut (), query, entry, memory) == Some(Ended::Settled),
            Some(ended) => ended == Ended::Settled,
        };
        if is_found { merge(found, &memory.pool, query.options.k) } else { None }
    }

    /// A walk by codes; leaves in the pool what is nearest by the vectors themselves. `None` if there are no codes, or if they
    /// cannot tell apart what is nearest.
    fn walk_by<C: Codec>(
        &self,
        codec: &C,
        kept: &mut C::Memory,
        Query { vector, options, ef, live }: Query<'_>,
        entry: Entry,
        memory: &mut WalkMemory,
    ) -> Option<Ended> {
        let Parts { rows, graph, states, growth, .. } = self.0;
        let ended = codec.scorer(rows, vector, kept).and_then(|scorer| {
            let beam = growth.beam(options.k, ef, scorer.origin());
            let walk = Walk { graph, scorer };
            let slots = self.0.slots();
            let ended = if options.filter.is_none() && !states.any_deleted() {
                walk.begin(entry, beam, slots, memory, |_| true);
                scorer.layer(graph, 0, memory, usize::MAX, |_| true)
            } else {
                let is_result =
                    |slot| states.is_live(slot) && options.filter.is_none_or(|filter| filter.contains(slot));
                walk.begin(entry, beam, slots, memory, is_result);
                scorer.layer(graph, 0, memory, WALK_PER_EF_MIN * ef + live / WALK_SHARE, is_result)
            };
            match ended {
                Ended::OverBudget => Some(ended),
                Ended::Settled => scorer.rank(rows, vector, options.k, ef, memory).then_some(ended),
            }
        });
        codec.let_go(kept);
        ended
    }
}

/// What a walk and the scan of the tail found together; `None` if that is too few.
fn merge(mut found: Vec<(f32, Slot)>, pool: &Pool, k: usize) -> Option<Vec<(f32, Slot)>> {
    found.extend(pool.iter().take(k));
    found.sort_unstable_by_key(|(distance, slot)| key(*distance, *slot));
    found.dedup();
    (found.len() >= k).then_some(found)
}
