//! A register that is decided once, by a majority: single-decree Paxos (Lamport, "Paxos Made Simple", 2001).
//!
//! Any node may propose at any time; there is no leader. A node asks the acceptors for promises under a ballot of its own,
//! proposes what the promises tell it to, or else what it wants, and the value that a majority has accepted is chosen for
//! good. The log of changes has one such register for each entry. What a value is, who the acceptors are and how it is
//! tried again is for the caller to say.

mod acceptor;
mod ballot;
mod proposer;
#[cfg(test)]
mod tests;

pub use acceptor::{Acceptor, Promise, Refused};
pub use ballot::{Ballot, ROUNDS_MAX};
pub use proposer::{Command, End, Failure, Proposer};
