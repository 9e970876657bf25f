//! The vector fields of a collection, each with an index.

mod field;
mod indexes;
mod parameters;

pub(crate) use field::FieldIndex;
pub(crate) use indexes::{Extent, FieldIndexes};
