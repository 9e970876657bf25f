//! Snapshots: named arenas, cut into pages that are named by their contents, listed in a manifest.
//!
//! Pages that two snapshots have in common are on disk once. A snapshot exists from the moment that its manifest has its
//! name; before that, and after it was dropped, its pages are garbage that the next collection removes. Two are kept, so
//! that the older can stand in for a damaged newer one; the log is cut only behind the older. Bytes are drawn in
//! `docs/disk.md`.

mod error;
mod inspect;
mod limits;
mod manifest;
mod reader;
mod shared;
mod store;
mod writer;

pub use error::SnapshotError;
pub use inspect::{InspectedSnapshot, SnapshotsInspection, inspect_snapshots};
pub use limits::{ARENA_NAME_BYTES_MAX, ARENAS_MAX};
pub use manifest::{PAGE_BYTES, SNAPSHOT_FORMAT_VERSION};
pub use reader::{ArenaPages, ArenaReader, Snapshot};
pub use store::SnapshotStore;
pub use writer::{SnapshotSummary, SnapshotWriter};
