//! How large a point is on its way.

use vecino_model::{PointId, RawPoint};

/// About how many bytes the point has in a frame; exact for vectors and payload, which are most of it.
pub(super) fn estimated_bytes(point: &RawPoint) -> usize {
    const OVERHEAD: usize = 48;
    let id = match &point.id {
        PointId::Number(_) => 9,
        PointId::Text(text) => text.len() + 5,
    };
    let vectors: usize = point.vectors.iter().map(|(name, vector)| name.len() + 10 + 4 * vector.0.len()).sum();
    OVERHEAD + id + vectors + point.payload.as_bytes().len()
}
