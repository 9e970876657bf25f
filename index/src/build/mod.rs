//! Changing the graph: taking nodes in, and taking them out.

pub(crate) mod concurrent_inserts;
pub(crate) mod consolidate;
pub(crate) mod link;
