//! No codes: distances by the full vectors.

use crate::codes::codec::Codec;
use crate::memory::rows::{QueryVector, Rows};
use crate::params::Metric;
use crate::search::walk::Scorer;
use crate::search::walk_memory::WalkMemory;
use crate::slot::Slot;

/// The way without codes.
pub(crate) struct Plain;

/// Distances by the full vectors.
#[derive(Clone, Copy)]
pub(crate) struct Exact<'a> {
    rows: &'a Rows,
    query: QueryVector<'a>,
}

impl Codec for Plain {
    type Memory = ();
    type Scorer<'a> = Exact<'a>;

    #[inline]
    fn scorer<'a>(&'a self, rows: &'a Rows, query: QueryVector<'a>, _memory: &'a mut ()) -> Option<Exact<'a>> {
        Some(Exact { rows, query })
    }
}

impl Scorer for Exact<'_> {
    const IS_EXACT: bool = true;

    fn origin(&self) -> Option<f32> {
        match self.rows.metric() {
            Metric::Euclidean | Metric::Manhattan => Some(0.0),
            Metric::Cosine => Some(-1.0),
            Metric::Dot => None,
        }
    }

    #[inline]
    fn distances(&self, slots: &[Slot], out: &mut [f32]) {
        self.rows.distances(self.query, slots, out);
    }

    #[inline(always)]
    fn prefetch(&self, slot: Slot) {
        self.rows.prefetch(slot);
    }

    fn is_coarse(&self, _coded: impl Iterator<Item = f32> + Clone, _exact: &[f32]) -> bool {
        false
    }

    fn rank(&self, _rows: &Rows, _query: QueryVector<'_>, _k: usize, _ef: usize, _memory: &mut WalkMemory) -> bool {
        true
    }
}
