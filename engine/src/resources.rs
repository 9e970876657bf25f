//! What all collections of a node share and can use up: memory, and the disk's last room.

use std::sync::Arc;

use crate::ballast::Ballast;
use crate::memory::{Account, Budget};

/// The resources of one node.
pub struct Resources {
    /// Memory.
    pub memory: Arc<Budget>,
    /// Room on the disk for deletes.
    pub ballast: Ballast,
}

impl Resources {
    /// Resources without end and without ballast, for what looks at data and keeps none, and for simulations.
    pub fn unlimited() -> Arc<Self> {
        Arc::new(Self { memory: Budget::unlimited(), ballast: Ballast::none() })
    }
}

/// What one collection has of them.
pub struct Share {
    /// Its account with the memory.
    pub account: Account,
    /// All of them.
    pub resources: Arc<Resources>,
}

impl Resources {
    /// The share of a collection of this name.
    pub fn share(self: &Arc<Self>, collection: &str) -> Share {
        Share { account: self.memory.account(collection), resources: Arc::clone(self) }
    }
}
