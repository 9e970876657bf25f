//! How large a point is on its way.

use vecino_model::{Point, PointId, Value};

/// About how many bytes the point has in a frame; exact for vectors, which are most of it.
pub(super) fn estimated_bytes(point: &Point) -> usize {
    const OVERHEAD: usize = 48;
    let id = match &point.id {
        PointId::Number(_) => 9,
        PointId::Text(text) => text.len() + 5,
    };
    let vectors: usize = point.vectors.iter().map(|(name, vector)| name.len() + 10 + 4 * vector.0.len()).sum();
    let payload: usize = point.payload.iter().map(|(key, value)| key.len() + 5 + value_bytes(value)).sum();
    OVERHEAD + id + vectors + payload
}

fn value_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 1,
        Value::Int(_) | Value::UInt(_) | Value::Float(_) => 9,
        Value::Text(text) => text.len() + 5,
        Value::List(values) => 5 + values.iter().map(value_bytes).sum::<usize>(),
        Value::Map(values) => 5 + values.iter().map(|(key, value)| key.len() + 5 + value_bytes(value)).sum::<usize>(),
    }
}
