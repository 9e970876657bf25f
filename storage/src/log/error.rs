//! Why the log refuses.

use std::fmt::Display;
use std::io;

use super::limits::{BATCH_BYTES_MAX, RECORD_BYTES_MAX};
use crate::disk::is_full;

/// Whatever the caller of [`super::Log::replay`] fails with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a call to the log failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// There is no room. Nothing of the batch was kept, and the log works again when there is room.
    #[error("disk full: cannot {action} {path}: {source}; free some space, then try again")]
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
    /// A flush failed earlier.
    #[error("log {dir} takes no more calls since a flush failed ({reason}): check the disk, then open it again")]
    Poisoned {
        /// The log's directory.
        dir: String,
        /// The failure that did it.
        reason: String,
    },
    /// Bytes that were durable are not what was written. Nothing was cut.
    #[error("log file {file} is corrupt at offset {offset}: {reason}")]
    Corrupt {
        /// Which file.
        file: String,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// The log was written by a newer program.
    #[error("log file {file} has format version {found}, this program knows up to {known}: use a newer program")]
    NewerFormat {
        /// Which file.
        file: String,
        /// Its version.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// The directory holds the log of another collection.
    #[error("log file {file} belongs to collection {found}, not to {expected}")]
    WrongCollection {
        /// Which file.
        file: String,
        /// The collection that it belongs to, in hex.
        found: String,
        /// The collection that was asked for, in hex.
        expected: String,
    },
    /// Records that are asked for were cut away behind a snapshot.
    #[error(
        "log {dir} begins at lsn {first}, but records from lsn {wanted} on are needed: take a newer snapshot or a replica"
    )]
    Missing {
        /// The log's directory.
        dir: String,
        /// Lsn asked for.
        wanted: u64,
        /// Lsn of the oldest record.
        first: u64,
    },
    /// The log ends before the lsn asked for: it has lost records that a snapshot holds.
    #[error("log {dir} ends before lsn {next}, but a replay from lsn {wanted} is asked for: its tail is lost")]
    Behind {
        /// The log's directory.
        dir: String,
        /// Lsn asked for.
        wanted: u64,
        /// Lsn of the next record.
        next: u64,
    },
    /// A record is over the limit.
    #[error("record {index} of the batch has {bytes} bytes, the limit is {RECORD_BYTES_MAX}")]
    RecordTooLarge {
        /// Which record.
        index: usize,
        /// Its size.
        bytes: usize,
    },
    /// A batch is over the limit.
    #[error("the batch has {bytes} bytes, the limit is {BATCH_BYTES_MAX}: send it in parts")]
    BatchTooLarge {
        /// Its size.
        bytes: u64,
    },
    /// The caller could not apply a record.
    #[error("record {lsn} of the log cannot be applied: {source}")]
    Apply {
        /// Which record.
        lsn: u64,
        /// Why.
        source: BoxError,
    },
}

impl LogError {
    pub(super) fn io(action: &'static str, path: &str, source: io::Error) -> Self {
        let path = path.to_owned();
        if is_full(&source) { Self::Full { action, path, source } } else { Self::Io { action, path, source } }
    }

    pub(super) fn corrupt(file: &str, offset: u64, reason: impl Display) -> Self {
        Self::Corrupt { file: file.to_owned(), offset, reason: reason.to_string() }
    }
}
