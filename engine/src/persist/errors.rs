//! Why a collection could not be opened, or a snapshot of it not be taken or read.

use std::io;

use vecino_storage::{LogError, SnapshotError};
use vecino_supervise::Panicked;

use crate::memory::OverLimit;
use crate::persist::layout::FORMAT;

/// Why a collection could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The snapshots.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// No snapshot could be read, and the log no longer reaches back to the first write.
    #[error(
        "no snapshot can be read and the log begins at lsn {first_lsn}: records before it are gone from this node ({reason})"
    )]
    Incomplete {
        /// First record that the log still has.
        first_lsn: u64,
        /// What was wrong with the last snapshot that was tried.
        reason: String,
    },
    /// A record that the log says is whole and that does not decode.
    #[error("log record {lsn} cannot be applied: {reason}")]
    Record {
        /// Which record.
        lsn: u64,
        /// Why.
        reason: String,
    },
    /// The schema asks for an index that cannot be made.
    #[error(transparent)]
    Index(#[from] vecino_index::IndexError),
    /// It does not fit into the memory that the node may use.
    #[error(transparent)]
    Memory(OverLimit),
    /// A thread could not be started.
    #[error("the writer thread could not be started: {0}")]
    Thread(#[source] io::Error),
    /// Opening it panicked.
    #[error("{0}; it is tried again")]
    Panicked(#[from] Panicked),
}

impl OpenError {
    /// Whether what lies on disk is damaged or incomplete, so that trying again is no use: only other replicas have what
    /// is missing.
    pub fn needs_copy(&self) -> bool {
        match self {
            Self::Log(LogError::Corrupt { .. }) | Self::Incomplete { .. } | Self::Record { .. } => true,
            Self::Log(_)
            | Self::Snapshot(_)
            | Self::Index(_)
            | Self::Memory(_)
            | Self::Thread(_)
            | Self::Panicked(_) => false,
        }
    }
}

/// Why a snapshot could not be taken. The older ones are as they were.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The snapshot store.
    #[error(transparent)]
    Store(#[from] SnapshotError),
    /// Writing its pages.
    #[error("cannot write the snapshot: {0}")]
    Io(#[from] io::Error),
    /// The log could not be flushed up to where the snapshot begins.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The collection is being closed.
    #[error("collection {0:?} is closed")]
    Closed(String),
    /// One at a time.
    #[error("a snapshot of collection {0:?} is being taken already")]
    Busy(String),
    /// Taking it panicked.
    #[error("a snapshot of collection {collection:?} panicked ({reason}); the log has everything")]
    Panicked {
        /// Its name.
        collection: String,
        /// What the panic said.
        reason: String,
    },
}

/// Why one snapshot could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Index(#[from] vecino_index::LoadError),
    #[error(transparent)]
    Memory(#[from] OverLimit),
    #[error("arena {0:?} is missing")]
    MissingArena(&'static str),
    #[error("arena {arena:?} does not decode: {reason}")]
    Decode { arena: &'static str, reason: String },
    #[error("it is of {0}, not of this collection")]
    Foreign(String),
    #[error("it has format {found}, and this version knows {FORMAT} at most: use a newer vecino")]
    Newer { found: u32 },
}
