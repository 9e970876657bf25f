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
    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        let value = self.value.as_ref().map_or(0, |RecordValue { vectors, payload }| {
            vectors.values().map(|vector| vector.0.len() * 4).sum::<usize>() + payload.as_bytes().len()
        });
        let id = match &self.id {
            PointId::Number(_) => 9,
            PointId::Text(text) => text.len() + 3,
        };
        value + id + 32
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
