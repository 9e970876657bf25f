//! What is asked of a collection, whoever writes it: points by their ids and in ring order, the nearest ones,
//! statistics.
//!
//! Readers need [`Core`](crate::core::Core) alone. They take a read lock on the tables, briefly, and none on the
//! indexes.

mod errors;
mod scan;
mod search;
mod stats;

pub use errors::SearchError;
pub use scan::Page;
#[cfg(test)]
pub(crate) use scan::SCAN_BYTES;
pub use search::SearchRequest;
