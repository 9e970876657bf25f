//! A collection that is open: the handle that tasks hold, the thread that writes, the indexers that it has work for it.

pub(crate) mod backlog;
mod errors;
mod handle;
mod reads;
mod tended;
mod thread;

pub use errors::ApplyError;
pub use handle::Collection;
