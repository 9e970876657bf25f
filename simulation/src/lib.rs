//! Simulated runs of a mesh, and what is asked of them.
//!
//! A run is recorded as a history of what its clients did and saw; [`checkers`] judges it. They are pure and know nothing
//! of how the history came about, so they judge runs of real processes as well.

pub mod checkers;
