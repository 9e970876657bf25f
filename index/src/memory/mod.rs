//! What an index keeps of each slot: its vector, its links, its state; and when memory may be used again.

pub(crate) mod arena;
pub(crate) mod graph;
pub(crate) mod readers;
pub(crate) mod rows;
pub(crate) mod slot_set;
pub(crate) mod states;
pub(crate) mod sync;
