//! Why a search was not done.

use vecino_model::{PointId, Version};

/// Most bytes of payloads and vectors in the answer to one search.
pub(crate) const SEARCH_BYTES_MAX: usize = 32 * 1024 * 1024;

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
