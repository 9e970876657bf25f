//! A node of vecino as a library: its store, what it answers as a replica, the driver of what it decides, joining, and
//! configuration.

mod blocking;
pub mod catalog_file;
pub mod collection_files;
pub mod config;
pub mod driver;
pub mod hints;
pub mod identity;
pub mod join;
pub mod node;
pub mod open_collections;
pub mod replica;
mod scan_stream;
pub mod searches;
pub mod service;
pub mod snapshots;
pub mod state;
pub mod store;
pub mod wall_clock;

pub use node::{Node, StartError};
