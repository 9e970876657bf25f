//! Where points lie on the ring.

use crate::{CollectionId, PointId};

/// Where a point lies on the ring: the first eight bytes, big-endian, of `blake3(collection id, tag, point id)`. The
/// tag keeps the number 7 and the text "7" apart.
pub fn position(collection: CollectionId, id: &PointId) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&collection.0);
    match id {
        PointId::Number(number) => hasher.update(&[0]).update(&number.to_le_bytes()),
        PointId::Text(text) => hasher.update(&[1]).update(text.as_bytes()),
    };
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_be_bytes(first)
}
