//! What a node decides, as pure code: the clock, the ring, who is up, which collections there are, quorums, whom to ask
//! and how to put answers together.
//!
//! Nothing here knows a clock, a socket, a disk, a thread or a task: time and answers come in as arguments, and commands
//! come out. So all of it runs in a seeded simulation.

pub mod allocator;
pub mod catalog;
pub mod changes;
pub mod client;
pub mod clock;
pub mod collections;
pub mod core;
pub mod cover_cache;
pub mod event;
pub mod fanout;
pub mod hints;
pub mod hlc;
pub mod joining;
pub mod machine;
pub mod merge;
pub mod message;
pub mod node;
mod operations;
pub mod peers;
pub mod plants;
pub mod quorum;
pub mod register;
pub mod ring;
pub mod roster;
pub mod score;
pub mod time;
pub mod tokens;
pub mod turns;
pub mod wall_clocks;
