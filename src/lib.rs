//! The node of vecino: collections, coordinator, configuration and command line.
//!
//! Applications use the crate `vecino-client`; this one is the library behind the binary, and what its tests use.

pub mod backup;
pub mod ballast;
pub mod catalog;
pub mod cli;
pub mod collection;
pub mod colors;
pub mod config;
pub mod coordinator;
pub mod demo;
pub mod doctor;
pub mod files;
pub mod memory;
pub mod node;
pub mod process;
pub mod quorum;
pub mod resources;
pub mod validate;
