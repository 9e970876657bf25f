//! What searches and scans find.

use serde::{Deserialize, Serialize};

use crate::{DecodePayloadError, Fields, Payload, PointId, RawPayload, Version};

/// A point that was found. With a [`RawPayload`] it is a hit as it travels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hit<P = Payload> {
    /// Its id.
    pub id: PointId,
    /// Its score; which way is better depends on the metric.
    pub score: f32,
    /// Version of the point that was scored.
    pub version: Version,
    /// Its payload, where asked for.
    #[serde(default = "absent")]
    pub payload: Option<P>,
    /// Its vectors, where asked for.
    #[serde(default)]
    pub vectors: Fields,
}

/// A hit as it travels.
pub type RawHit = Hit<RawPayload>;

fn absent<P>() -> Option<P> {
    None
}

impl RawHit {
    /// The hit with its payload decoded.
    ///
    /// # Errors
    /// When the payload is none.
    pub fn decode(self) -> Result<Hit, DecodePayloadError> {
        let Self { id, score, version, payload, vectors } = self;
        let payload = payload.as_ref().map(RawPayload::decode).transpose()?;
        Ok(Hit { id, score, version, payload, vectors })
    }
}

impl From<Hit> for RawHit {
    fn from(hit: Hit) -> Self {
        let Hit { id, score, version, payload, vectors } = hit;
        Self { id, score, version, payload: payload.map(RawPayload::from), vectors }
    }
}

/// A place in the ring order of a collection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ScanCursor {
    /// Position on the ring.
    pub position: u64,
    /// Id at that position.
    pub id: PointId,
}
