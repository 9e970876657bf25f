//! A running node.

pub mod clock;
pub mod identity;
pub mod join;
pub mod replica;
pub mod snapshots;
pub mod state;
pub mod store;
