//! Why a write was not done.

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
    /// The writer ended before it answered; what was asked of it may be written.
    #[error("the writer of collection {0:?} ended before it answered")]
    Lost(String),
}
