//! Judges of recorded runs.
//!
//! - [`history`]: what the clients did, which all of the others judge.
//! - [`linearizable`]: each point is a linearizable register.
//! - [`search`]: exact searches return what was there, and nothing that was not.
//! - [`versions`]: one version has one value, wherever it is seen.
//! - [`converged`]: after the faults every point is where it belongs, and nothing was lost or came back.
//!
//! They compare times only between operations: one precedes another if it ended at an earlier time than the other
//! began. Where both are at the same time they count as concurrent, which may hide a violation and never invents one. A
//! recorder that counts events in place of milliseconds has no such times.

pub mod converged;
pub mod history;
pub mod linearizable;
pub mod search;
pub mod versions;
mod writes;
