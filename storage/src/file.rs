//! One small file that is there in full or not at all: node state, settings, an epoch. Drawn in `docs/disk.md`.

use std::io;

use crate::disk::{Disk, join, read_whole, split};
use crate::preamble::{PREAMBLE_BYTES, Preamble, encode, judge, u64_at};

/// Largest contents of one such file, in bytes.
pub const FILE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Why a small file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The contents are over the limit.
    #[error("{path}: {bytes} bytes of contents, the limit is {FILE_BYTES_MAX}")]
    TooLarge {
        /// Which file.
        path: String,
        /// How much was to be written.
        bytes: usize,
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
    /// The file is damaged.
    #[error("{path} is corrupt at offset {offset}: {reason}; restore it from a copy, or remove it to start anew")]
    Corrupt {
        /// Which file.
        path: String,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// The file was written by a newer program.
    #[error("{path} has format version {found}, this program knows up to {known}: use a newer program")]
    NewerFormat {
        /// Which file.
        path: String,
        /// Its version.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
}

/// Replaces the contents of `path` by `bytes`, durably: after a crash at any moment it holds the old or the new contents.
///
/// The directory must exist.
pub fn write_atomically(disk: &dyn Disk, path: &str, bytes: &[u8]) -> Result<(), FileError> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(FileError::TooLarge { path: path.to_owned(), bytes: bytes.len() });
    }
    let mut out = Vec::with_capacity(HEADER_BYTES + bytes.len());
    encode(MAGIC, VERSION, &mut out);
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(blake3::hash(bytes).as_bytes());
    out.extend_from_slice(bytes);
    replace(disk, path, &out).map_err(|e| FileError::Io { action: e.action, path: path.to_owned(), source: e.source })
}

/// The contents that [`write_atomically`] gave `path`, verified; `None` where there is no such file.
pub fn read_verified(disk: &dyn Disk, path: &str) -> Result<Option<Vec<u8>>, FileError> {
    let mut bytes = match read_whole(disk, path, (HEADER_BYTES + FILE_BYTES_MAX) as u64) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(FileError::Io { action: "read", path: path.to_owned(), source }),
    };
    let corrupt = |offset: usize, reason: &str| FileError::Corrupt {
        path: path.into(),
        offset: offset as u64,
        reason: reason.into(),
    };
    match judge(&bytes, MAGIC, VERSION) {
        Preamble::Known => {}
        Preamble::Newer(found) => return Err(FileError::NewerFormat { path: path.to_owned(), found, known: VERSION }),
        Preamble::Bad(reason) => return Err(corrupt(0, reason)),
    }
    if bytes.len() < HEADER_BYTES {
        return Err(corrupt(bytes.len(), "the file is shorter than its header"));
    }
    if u64_at(&bytes, PREAMBLE_BYTES) != (bytes.len() - HEADER_BYTES) as u64 {
        return Err(corrupt(PREAMBLE_BYTES, "the length does not match that of the file"));
    }
    let contents = bytes.split_off(HEADER_BYTES);
    if bytes[PREAMBLE_BYTES + 8..] != *blake3::hash(&contents).as_bytes() {
        return Err(corrupt(PREAMBLE_BYTES + 8, "the hash of the contents does not match"));
    }
    Ok(Some(contents))
}

/// Writes `bytes` under a temporary name, flushes, renames, flushes the directory. The temporary file of a failed attempt
/// is removed, as far as the disk lets it be.
pub(crate) fn replace(disk: &dyn Disk, path: &str, bytes: &[u8]) -> Result<(), ReplaceError> {
    let (dir, name) = split(path);
    let temporary = join(dir, &format!("{name}{TEMPORARY_SUFFIX}"));
    let failed = |action, may_be_replaced| move |source| ReplaceError { action, source, may_be_replaced };
    let write = || {
        let file = disk.create(&temporary).map_err(failed("create", false))?;
        file.write_at(bytes, 0).map_err(failed("write", false))?;
        file.sync().map_err(failed("flush", false))?;
        disk.rename(&temporary, path).map_err(failed("rename", true))
    };
    write().inspect_err(|_| {
        let _ = disk.remove(&temporary);
    })?;
    disk.sync_dir(dir).map_err(failed("flush the directory of", true))
}

/// Which step of [`replace`] failed.
#[derive(Debug)]
pub(crate) struct ReplaceError {
    pub action: &'static str,
    pub source: io::Error,
    /// Whether the name may have changed hands, now or after a crash.
    pub may_be_replaced: bool,
}

/// What a file is called until it is complete. Whatever still bears it on opening is left from a crash, and removed.
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";
const MAGIC: &[u8; 8] = b"VECINOFL";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = PREAMBLE_BYTES + 8 + 32;
