//! Why a snapshot cannot be taken or read.

use std::fmt::Display;
use std::io;

use super::limits::{ARENA_NAME_BYTES_MAX, ARENAS_MAX};
use crate::disk::is_full;

/// Why a call to the snapshots failed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is no room. Nothing of the new snapshot is left; the older ones are as they were.
    #[error("disk full: cannot {action} {path}: {source}; free some space, then take the snapshot again")]
    Full {
        /// What was being done.
        action: &'static str,
        /// Which file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The disk failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// Which file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Bytes are not what was written.
    #[error("snapshot file {file} is corrupt at offset {offset}: {reason}")]
    Corrupt {
        /// Which file.
        file: String,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// The snapshot was written by a newer program.
    #[error("snapshot file {file} has format version {found}, this program knows up to {known}: use a newer program")]
    NewerFormat {
        /// Which file.
        file: String,
        /// Its version.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// Another one is being written.
    #[error("a snapshot into {dir} is being taken already: wait for it")]
    InProgress {
        /// The snapshots' directory.
        dir: String,
    },
    /// Arenas were begun or written out of order.
    #[error(
        "arena {name:?}: {reason}; at most {ARENAS_MAX} arenas with different names of 1 to {ARENA_NAME_BYTES_MAX} bytes"
    )]
    Arena {
        /// The name of the arena; empty where none was begun.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// An earlier call on this writer failed.
    #[error("the snapshot is incomplete since an earlier write failed: take another")]
    Incomplete,
}

impl SnapshotError {
    pub(super) fn io(action: &'static str, path: &str, source: io::Error) -> Self {
        let path = path.to_owned();
        if is_full(&source) { Self::Full { action, path, source } } else { Self::Io { action, path, source } }
    }

    pub(super) fn corrupt(file: &str, offset: u64, reason: impl Display) -> Self {
        Self::Corrupt { file: file.to_owned(), offset, reason: reason.to_string() }
    }

    /// The same damage, told a second time.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Corrupt { file, offset, reason } => {
                Self::Corrupt { file: file.clone(), offset: *offset, reason: reason.clone() }
            }
            other => Self::Corrupt { file: String::new(), offset: 0, reason: other.to_string() },
        }
    }

    /// The error that [`SnapshotError::into_io`] has wrapped.
    pub(super) fn from_io(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(inner) => inner,
            Err(source) => Self::Io { action: "write", path: "snapshot".to_owned(), source },
        }
    }

    /// As an error of [`io::Read`] and [`io::Write`], from which it can be taken out again by downcasting.
    pub(super) fn into_io(self) -> io::Error {
        let kind = match &self {
            Self::Full { source, .. } | Self::Io { source, .. } => source.kind(),
            Self::Corrupt { .. } | Self::NewerFormat { .. } => io::ErrorKind::InvalidData,
            Self::InProgress { .. } => io::ErrorKind::ResourceBusy,
            Self::Arena { .. } => io::ErrorKind::InvalidInput,
            Self::Incomplete => io::ErrorKind::Other,
        };
        io::Error::new(kind, self)
    }
}

impl From<SnapshotError> for io::Error {
    fn from(error: SnapshotError) -> Self {
        error.into_io()
    }
}
