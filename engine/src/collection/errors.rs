//! Why a write or a search was not done.

use vecino_model::{PointId, Version};

/// Most bytes of payloads and vectors in the answer to one search.
pub(crate) const SEARCH_BYTES_MAX: usize = 32 * 1024 * 1024;

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

/// Why a search could not be done.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// No such field.
    #[error("vector field {0:?} is not in the schema")]
    UnknownField(String),
    /// The index refused it.
    #[error(transparent)]
    Index(#[from] vecino_index::IndexError),
    /// A stored payload does not decode.
    #[error("the stored payload of point {id} at version {version} is damaged: {reason}; put the point again")]
    Damaged {
        /// The point.
        id: PointId,
        /// The version that is damaged.
        version: Version,
        /// Why it does not decode.
        reason: String,
    },
    /// The answer would be too large.
    #[error(
        "payloads and vectors of the hits take more than {SEARCH_BYTES_MAX} bytes: ask for fewer hits, or without them"
    )]
    TooLarge,
}
