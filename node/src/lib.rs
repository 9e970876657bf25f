//! A node of vecino as a library: its store, what it answers as a replica, the coordinator of clients' requests, joining,
//! and configuration.

pub mod clock;
pub mod config;
pub mod coordinator;
pub mod identity;
pub mod join;
pub mod node;
pub mod replica;
pub mod searches;
pub mod service;
pub mod shelf;
pub mod snapshots;
pub mod state;
pub mod store;

pub use node::{Node, StartError};
