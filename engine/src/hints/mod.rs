//! What other replicas have missed, on disk: a log for each of them.
//!
//! A node that is asked to write keeps here what a replica did not take, and hands it over when the replica takes it again.
//! It is a help and no promise: it never counts for a level. So it is flushed once a second and not before anything is
//! answered, and it is bounded: in bytes over all replicas, and in age. Beyond that the oldest are forgotten, a segment at
//! a time. What the disk does not take, since it is full say, is held in memory until it does, within a bound of its own:
//! a full disk refuses puts, too, and what this node's own replica has missed for that reason is to reach it.

mod batch;
mod held;
mod log;
mod logs;
#[cfg(test)]
mod tests;

pub use batch::HintBatch;
pub use log::HINTS;
pub use logs::{HintError, HintLimits, HintLogs};
