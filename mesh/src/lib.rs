//! What a node decides, as pure code: the clock, the ring, who is up, which collections there are, quorums, whom to ask
//! and how to put answers together.
//!
//! Nothing here knows a clock, a socket, a disk, a thread or a task: time and answers come in as arguments, and commands
//! come out. So all of it runs in a seeded simulation.

pub mod catalog;
pub mod cover_cache;
pub mod fanout;
pub mod hlc;
pub mod merge;
pub mod quorum;
pub mod ring;
pub mod roster;
pub mod tokens;
