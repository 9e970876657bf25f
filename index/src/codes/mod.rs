//! Short codes of vectors, for walks that measure many of them.

pub(crate) mod fast;
pub(crate) mod projection;
pub(crate) mod scalar;
