//! One collection on one node: writer, tables, indexes, snapshots, opening; and what all collections of a node share,
//! memory and the last room on the disk; what other nodes have missed.

pub mod ballast;
pub mod changes;
mod collection;
mod core;
mod disk_fault;
mod entries;
mod faults;
mod fields;
mod group;
pub mod hints;
pub mod indexers;
mod key;
mod linking;
mod local;
pub mod memory;
pub mod persist;
pub mod progress;
mod reads;
pub mod record;
pub mod resources;
mod slots;
mod tables;
pub mod tails;
#[cfg(test)]
mod tests;
mod writer;

pub use collection::{ApplyError, Collection};
pub use disk_fault::DiskFault;
pub use key::Key;
pub use local::LocalCollection;
pub use persist::{OpenError, TakeError};
pub use reads::{Page, SearchError, SearchRequest};
