//! Changing the graph: taking nodes in, and taking them out.

pub(crate) mod consolidate;
pub(crate) mod link;
pub(crate) mod meetings;
