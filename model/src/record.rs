//! One version of one point, and what became of a write.

use serde::{Deserialize, Serialize};

use crate::{Fields, PointId, RawPayload, Version};

/// One version of one point: what the log holds, and what replicas send each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The point.
    pub id: PointId,
    /// Its version.
    pub version: Version,
    /// What it is; absent for a tombstone.
    pub value: Option<RecordValue>,
}

impl Record {
    /// The same version of the point with these parts; the others are as empty as those of a point that has none.
    pub fn with_parts(mut self, parts: Parts) -> Self {
        if let Some(value) = &mut self.value {
            if !parts.vectors {
                value.vectors = Fields::new();
            }
            if !parts.payload {
                value.payload = RawPayload::default();
            }
        }
        self
    }

    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        let value = self.value.as_ref().map_or(0, |RecordValue { vectors, payload }| {
            vectors.values().map(|vector| vector.0.len() * 4).sum::<usize>() + payload.as_bytes().len()
        });
        value + self.id.bytes() + 32
    }
}

/// Which parts of points are wanted beside their ids and versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// The vectors of all fields.
    pub vectors: bool,
    /// The payload.
    pub payload: bool,
}

impl Parts {
    /// Everything.
    pub const ALL: Self = Self { vectors: true, payload: true };
}

/// Everything, so that a request that does not say otherwise has whole records.
impl Default for Parts {
    fn default() -> Self {
        Self::ALL
    }
}

/// What a live point holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordValue {
    /// Its vectors by field.
    pub vectors: Fields,
    /// Its payload: nodes store it as it came.
    pub payload: RawPayload,
}

/// What became of one point of a batch, in the batch's order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Durable on as many replicas as the level asked for. A replica that already had a newer version says so with it.
    Written(Version),
    /// Refused before anything was logged, with field, value and limit.
    Refused(String),
    /// Nothing was written, since too few replicas could be asked: safe to send again.
    Unavailable(String),
    /// Not acknowledged by enough replicas: it may or may not take effect.
    Unknown(String),
}
