//! The node's hybrid logical clock, shared by everything that stamps.

use std::sync::{Mutex, PoisonError};

use vecino_mesh::hlc::{ClockDrift, Hlc};
use vecino_model::{NodeId, Version};

use crate::replica::now_ms;

/// Stamps versions.
pub struct Clock {
    node: NodeId,
    hlc: Mutex<Hlc>,
}

impl Clock {
    /// The clock of a node.
    pub fn new(node: NodeId) -> Self {
        Self { node, hlc: Mutex::default() }
    }

    /// Takes note of a version that another node stamped, so that later ones are above it.
    pub fn observe(&self, version: Version) -> Result<(), ClockDrift> {
        self.hlc.lock().unwrap_or_else(PoisonError::into_inner).observe(version.time, now_ms())
    }

    /// Takes note of a version that this node holds from an earlier life.
    pub fn raise(&self, version: Version) {
        self.hlc.lock().unwrap_or_else(PoisonError::into_inner).raise(version.time);
    }

    /// A version newer than every one given before, and than `above`.
    pub fn stamp(&self, above: Version) -> Result<Version, ClockDrift> {
        let now = now_ms();
        let mut hlc = self.hlc.lock().unwrap_or_else(PoisonError::into_inner);
        hlc.observe(above.time, now)?;
        Ok(Version { time: hlc.tick(now), node: self.node })
    }
}
