//! Finding what is nearest: by walking the graph, or by looking at everything.

pub(crate) mod flat;
pub(crate) mod growth;
pub(crate) mod hnsw;
pub(crate) mod measure;
pub(crate) mod pool;
pub(crate) mod scratch;
pub(crate) mod searcher;
pub(crate) mod walk;
pub(crate) mod walk_memory;
