//! Walking the graph: by codes where there are some, and what they find is measured by the vectors themselves.

use crate::codes::chosen::Codes;
use crate::codes::codec::Codec;
use crate::codes::plain::Plain;
use crate::memory::graph::Entry;
use crate::parts::Parts;
use crate::search::flat::Flat;
use crate::search::kind::{Ask, Kind};
use crate::search::pool::{Pool, key};
use crate::search::scratch::Scratch;
use crate::search::walk::{Ended, Scorer, Walk};
use crate::search::walk_memory::WalkMemory;
use crate::slot::Slot;

/// A walk through deleted or refused nodes may measure this share of the live slots, and [`WALK_PER_EF_MIN`] more for each of
/// its `ef`; then a scan is cheaper.
const WALK_SHARE: usize = 4;
/// See [`WALK_SHARE`].
const WALK_PER_EF_MIN: usize = 64;

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
        let entry = self.0.graph.entry()?;
        let Scratch { memory, codes, .. } = scratch;
        let found_by_codes = match &self.0.codes {
            Codes::Plain(_) => None,
            Codes::Fast(codec) => self.walk_by(codec, &mut codes.fast, ask, entry, memory),
            Codes::Scalar(codec) => self.walk_by(codec, &mut codes.scalar, ask, entry, memory),
        };
        let is_found = match found_by_codes {
            None => self.walk_by(&Plain, &mut (), ask, entry, memory) == Some(Ended::Settled),
            Some(ended) => ended == Ended::Settled,
        };
        if is_found { merge(found, &memory.pool, ask.options.k) } else { None }
    }

    /// A walk by codes; leaves in the pool what is nearest by the vectors themselves. `None` if there are no codes, or if they
    /// cannot tell apart what is nearest.
    fn walk_by<C: Codec>(
        &self,
        codec: &C,
        kept: &mut C::Memory,
        Ask { query, options, ef, live }: Ask<'_>,
        entry: Entry,
        memory: &mut WalkMemory,
    ) -> Option<Ended> {
        let Parts { rows, graph, states, growth, .. } = self.0;
        let ended = codec.scorer(rows, query, kept).and_then(|near| {
            let breadth = growth.breadth(options.k, ef, near.origin());
            let walk = Walk { graph, near };
            let slots = self.0.slots();
            let ended = if options.filter.is_none() && !states.any_buried() {
                walk.begin(entry, breadth, slots, memory, |_| true);
                near.layer(graph, 0, memory, usize::MAX, |_| true)
            } else {
                let is_result =
                    |slot| states.is_live(slot) && options.filter.is_none_or(|filter| filter.contains(slot));
                walk.begin(entry, breadth, slots, memory, is_result);
                near.layer(graph, 0, memory, WALK_PER_EF_MIN * ef + live / WALK_SHARE, is_result)
            };
            match ended {
                Ended::OverBudget => Some(ended),
                Ended::Settled => near.rank(rows, query, options.k, ef, memory).then_some(ended),
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
