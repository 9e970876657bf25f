//! What is wrong with a data directory while no node runs on it, what that means, and putting right what loses nothing.
//!
//! [`examine()`] reads everything and changes nothing. What the bytes say is found by [`vecino_storage::inspect`]; records
//! and snapshots are judged by the code that opens a collection; `meaning` decides what it comes to. [`repair()`] then
//! does only what opening would do anyway, and removes snapshots that cannot be used where another source has everything.

mod examine;
mod meaning;
mod repair;
mod report;
#[cfg(test)]
mod tests;

pub use examine::examine;
pub use repair::{Repaired, repair};
pub use report::{CollectionReport, Diagnosis, Loss, Repair, Report, SnapshotReport};
