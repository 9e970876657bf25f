//! What a point is known by in the tables, and what they know of it.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use vecino_index::Slot;
use vecino_model::{PointId, ScanCursor, Version};

/// Where a point lies: ring order, so that ranges are contiguous and scans need no sorting.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Position on the ring.
    pub position: u64,
    /// Its id.
    pub id: PointId,
}

impl Hash for Key {
    /// The position tells ids apart well enough.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.position.hash(state);
    }
}

impl From<&ScanCursor> for Key {
    fn from(cursor: &ScanCursor) -> Self {
        let ScanCursor { position, id } = cursor;
        Self { position: *position, id: id.clone() }
    }
}

/// A live version of a point.
#[derive(Debug, PartialEq)]
pub struct Live {
    /// Where it lies.
    pub key: Key,
    /// Its version.
    pub version: Version,
    /// Its slot in the index of each vector field that it has.
    pub slot: Slot,
    /// Its payload as MessagePack.
    pub payload: Box<[u8]>,
}

/// What is known of one id.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The newest version.
    pub version: Version,
    /// What it is; absent for a tombstone.
    pub live: Option<Arc<Live>>,
}
