//! What a snapshot holds of one point.

use std::borrow::Cow;

use vecino_model::{PointId, Version};

/// One slot or tombstone in a snapshot; the vectors are in the arenas of the indexes.
#[derive(Debug, PartialEq)]
pub struct SnapshotEntry<'a> {
    /// The point.
    pub id: Cow<'a, PointId>,
    /// Its version.
    pub version: Version,
    /// Its slot; absent for a tombstone.
    pub slot: Option<u32>,
    /// Its payload as MessagePack.
    pub payload: Cow<'a, [u8]>,
}
