//! What every kind of index does: find what is nearest. The graph is one ([`hnsw`](crate::search::hnsw)), looking at everything
//! is the other ([`flat`](crate::search::flat)).

use crate::memory::rows::QueryVector;
use crate::params::SearchOptions;
use crate::search::scratch::Scratch;
use crate::slot::Slot;

/// What is looked for. The searching thread is counted among the readers.
#[derive(Clone, Copy)]
pub(crate) struct Query<'a> {
    pub vector: QueryVector<'a>,
    pub options: &'a SearchOptions<'a>,
    /// Candidates to keep, `k` at least.
    pub ef: usize,
    /// Number of live slots.
    pub live: usize,
}

/// A way to find what is nearest.
pub(crate) trait Searcher {
    /// Distances and slots of the nearest, nearest first: `k` or more, or all that there are. `None` where this way does
    /// not lead to `k`.
    fn nearest(&self, query: Query<'_>, scratch: &mut Scratch) -> Option<Vec<(f32, Slot)>>;
}
