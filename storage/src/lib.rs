//! Storage that cannot lose: a segmented write-ahead log, snapshots made of content-named pages, and recovery.
//!
//! This crate knows bytes, never vectors, and every call blocks: the caller runs it on a thread of its own. All of it
//! reaches the disk through the [`Disk`] trait, so the same code runs on a real directory, in memory with simulated
//! power cuts, and on a disk that fails on demand. Every byte that it writes is drawn in `docs/disk.md`.
//!
//! - [`Log`]: records in, an lsn out, durable once [`Log::commit`] says so.
//! - [`SnapshotStore`]: named arenas cut into pages, two snapshots kept, the log cut behind the older.
//! - [`write_atomically`] and [`read_verified`]: one small file that is there in full or not at all.
//! - [`inspect`]: what is wrong with all that, found without changing it.
//! - [`DirLock`]: one process to a data directory.
//!
//! ```
//! use std::sync::Arc;
//! use vecino_storage::{Log, LogOptions, MemDisk};
//!
//! let disk = MemDisk::new();
//! let (mut log, _) = Log::open(Arc::new(disk.clone()), "films/log", [7; 16], LogOptions::default())?;
//! let first = log.append(&[b"put 1", b"put 2"])?;
//! assert_eq!(log.commit()?, first + 1);
//!
//! disk.crash(42);
//! let (log, recovery) = Log::open(Arc::new(disk), "films/log", [7; 16], LogOptions::default())?;
//! assert_eq!(recovery.next_lsn, 3);
//! log.replay(2, &mut |lsn, record| {
//!     assert_eq!((lsn, record), (2, &b"put 2"[..]));
//!     Ok(())
//! })?;
//! # Ok::<(), vecino_storage::LogError>(())
//! ```

mod disk;
mod file;
pub mod inspect;
mod lock;
mod log;
pub mod preamble;
mod snapshot;

pub use disk::{CrashReport, Disk, DiskFile, Fault, FaultyDisk, MemDisk, RealDisk};
pub use file::{FILE_BYTES_MAX, FileError, read_verified, write_atomically};
pub use lock::{DirLock, LockError};
pub use log::{
    Apply, BATCH_BYTES_MAX, BoxError, LOG_FORMAT_VERSION, Log, LogError, LogOptions, RECORD_BYTES_MAX, Recovery,
    SyncPolicy, Take,
};
pub use snapshot::{
    ARENA_NAME_BYTES_MAX, ARENAS_MAX, ArenaPages, ArenaReader, PAGE_BYTES, SNAPSHOT_FORMAT_VERSION, Snapshot,
    SnapshotError, SnapshotStore, SnapshotSummary, SnapshotWriter,
};
