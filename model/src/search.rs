//! What searches and scans find.

use serde::{Deserialize, Serialize};

use crate::{Fields, Payload, PointId, Version};

/// A point that was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hit {
    /// Its id.
    pub id: PointId,
    /// Its score; which way is better depends on the metric.
    pub score: f32,
    /// Version of the point that was scored.
    pub version: Version,
    /// Its payload, where asked for.
    #[serde(default)]
    pub payload: Option<Payload>,
    /// Its vectors, where asked for.
    #[serde(default)]
    pub vectors: Fields,
}

/// A place in the ring order of a collection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ScanCursor {
    /// Position on the ring.
    pub position: u64,
    /// Id at that position.
    pub id: PointId,
}
