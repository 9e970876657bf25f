//! Backup and restore: a mesh's collections as content-named pages in a folder or an object store, and back onto any mesh.
//!
//! Both sides run in the command, through the client library; nodes know nothing of backups. A collection is scanned in
//! ring order, [packed](packer) into pages whose borders depend on nothing but the points beside them, and each
//! page is stored under the hash of its bytes, so what did not change since the last backup is there already. The
//! [manifest] is written last: without it there is no backup. Drawn in `docs/backup.md`.
//!
//! What is deliberately absent: a backup is no instant of the whole collection, since points that are written while it
//! runs may or may not be in it; versions are not kept, since the mesh that restores stamps its own; nothing removes old
//! backups and the pages that only they name.

pub mod create;
mod error;
pub mod manifest;
pub mod packer;
pub mod page;
pub mod restore;
pub mod target;
mod upload;

pub use create::{CreateRequest, Created, create};
pub use error::{BackupError, BadPage, PageDamage, PlaceFault, UrlFault};
pub use manifest::{BackupName, Manifest, ManifestFault};
pub use restore::{RestoreRequest, Restored, restore};
pub use target::Target;

/// Id of the point that stands in a collection while it is being restored. It says how far the restore has come, so that
/// the same command goes on from there. It is deleted at the end.
pub const MARKER_ID: &str = "vecino:restore";

/// Requests to the object store under way at once. Each holds a page in memory, a few MiB.
const STORE_REQUESTS_MAX: usize = 8;

#[cfg(test)]
mod tests;
