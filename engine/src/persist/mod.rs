//! What a collection keeps on disk: where it lies, taking snapshots, and opening it again.

pub(crate) mod errors;
mod inspector;
mod layout;
mod loading;
pub(crate) mod opening;
mod pace;
mod paths;
mod points;
pub(crate) mod taking;

pub use errors::{OpenError, TakeError};
pub use inspector::Inspector;
pub use paths::{disk_bytes, log_dir, snapshots_dir};
