//! Why a write was not done.

use std::time::Duration;

use crate::memory::Bytes;

/// Why a write did not happen.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ApplyError {
    /// The collection is being closed; nothing was written.
    #[error("collection {0:?} is closed")]
    Closed(String),
    /// The writer has panicked; nothing was written.
    #[error(
        "collection {collection:?} takes no writes until it is opened anew, for its writer panicked ({reason}): try again"
    )]
    Broken {
        /// Its name.
        collection: String,
        /// What the panic said.
        reason: String,
    },
    /// The writer has more to do than it can soon, or the node has no memory for one batch more; nothing was written.
    #[error(
        "{waiting} wait for the writer of collection {collection:?}, which are to be written first: try again in \
         {retry_after:?}", waiting = Bytes(*.waiting_bytes)
    )]
    Busy {
        /// Its name.
        collection: String,
        /// Bytes that wait.
        waiting_bytes: u64,
        /// When the batch may come again.
        retry_after: Duration,
    },
    /// The writer ended before it answered; what was asked of it may be written.
    #[error("the writer of collection {0:?} ended before it answered")]
    Lost(String),
}
