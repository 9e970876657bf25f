//! A collection that is open: the handle that tasks hold, and what they ask of it.

pub(crate) mod errors;
mod handle;
mod scan;
mod search;
mod stats;

pub use errors::{ApplyError, SearchError};
pub use handle::Collection;
pub use scan::Page;
#[cfg(test)]
pub(crate) use scan::SCAN_BYTES;
pub use search::SearchRequest;
