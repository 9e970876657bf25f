//! The node's hybrid logical clock, shared by everything that stamps.

use std::sync::{Mutex, PoisonError};

use vecino_mesh::hlc::{self, ClockDrift, Hlc};
use vecino_model::{NodeId, Version};

use crate::wall_clock::{SystemClock, WallClock};

/// Stamps versions.
pub struct Clock {
    node: NodeId,
    wall: Box<dyn WallClock>,
    hlc: Mutex<Hlc>,
}

impl Clock {
    /// The clock of a node, by the time of this machine.
    pub fn new(node: NodeId) -> Self {
        Self::by(node, SystemClock)
    }

    /// The clock of a node, by the time that `wall` tells.
    pub fn by(node: NodeId, wall: impl WallClock + 'static) -> Self {
        Self { node, wall: Box::new(wall), hlc: Mutex::default() }
    }

    /// Refuses a version that is too far ahead of the wall clock.
    ///
    /// # Errors
    /// When it is more than [`hlc::DRIFT_MS_MAX`] ahead.
    pub fn check_drift(&self, version: Version) -> Result<(), ClockDrift> {
        hlc::check_drift(version.time, self.wall.now_ms())
    }

    /// Takes note of a version that another node stamped, so that later ones are above it.
    ///
    /// # Errors
    /// As [`Clock::check_drift`].
    pub fn observe(&self, version: Version) -> Result<(), ClockDrift> {
        self.hlc.lock().unwrap_or_else(PoisonError::into_inner).observe(version.time, self.wall.now_ms())
    }

    /// Takes note of a version of a point that this node holds from an earlier life.
    pub fn raise(&self, version: Version) {
        self.hlc.lock().unwrap_or_else(PoisonError::into_inner).raise(version.time);
    }

    /// A version newer than every one given before, and than `above`.
    ///
    /// # Errors
    /// When `above` is too far ahead of the wall clock.
    pub fn stamp(&self, above: Version) -> Result<Version, ClockDrift> {
        let now = self.wall.now_ms();
        let mut hlc = self.hlc.lock().unwrap_or_else(PoisonError::into_inner);
        hlc.observe(above.time, now)?;
        Ok(Version { time: hlc.tick(now), node: self.node, seq: 0 })
    }
}
