//! Short codes of vectors, for walks that measure many of them.

pub(crate) mod chosen;
pub(crate) mod codec;
pub(crate) mod fast;
pub(crate) mod matrix;
pub(crate) mod plain;
pub(crate) mod projection;
pub(crate) mod scalar;
