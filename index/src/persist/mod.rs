//! Writing an index out, and making one of what was written.

pub(crate) mod arenas;
pub(crate) mod dump;
pub(crate) mod load;
pub(crate) mod pieces;
