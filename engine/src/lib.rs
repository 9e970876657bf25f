//! One collection on one node: writer, tables, indexes, snapshots, opening; and what all collections of a node share,
//! memory and the last room on the disk.

pub mod ballast;
mod collection;
mod core;
mod entries;
mod faults;
mod group;
pub mod indexers;
pub mod memory;
pub mod persist;
mod points;
pub mod progress;
pub mod record;
pub mod resources;
mod slots;
mod tables;
pub mod tails;
#[cfg(test)]
mod tests;
mod trouble;
mod writer;

pub use collection::*;
