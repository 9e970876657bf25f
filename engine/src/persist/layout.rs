//! How a snapshot is laid out: its arenas and what each begins with. Drawn in `docs/disk.md`.

use serde::{Deserialize, Serialize};
use vecino_model::CollectionId;

use crate::record::ENTRY_BYTES_MAX;

/// Version of what the arenas "meta", "points" and "tombstones" hold.
pub(crate) const FORMAT: u32 = 1;
/// The arena that says what the snapshot is of.
pub(crate) const META: &str = "meta";
/// The arena of live points.
pub(crate) const POINTS: &str = "points";
/// The arena of deleted points.
pub(crate) const TOMBSTONES: &str = "tombstones";
/// What the names of the arenas end in that have an entry for each slot of an index.
pub(crate) const NODES: &str = ".nodes";
/// Bytes of the length before each entry.
pub(crate) const LENGTH_BYTES: usize = size_of::<u32>();

/// An arena of the index of the field with this number.
pub(crate) fn field_arena(number: usize, arena: &str) -> String {
    format!("field{number}.{arena}")
}

/// First arena: what the snapshot is of.
#[derive(Serialize, Deserialize)]
struct StoredMeta {
    format: u32,
    #[serde(with = "serde_bytes")]
    collection: [u8; 16],
    fields: Vec<String>,
}

/// What a snapshot is of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Version of its layout.
    pub format: u32,
    /// Its collection.
    pub collection: CollectionId,
    /// The vector fields of the collection, in the schema's order.
    pub fields: Vec<String>,
}

impl Meta {
    /// Encodes it for its arena.
    pub fn encode(self) -> Vec<u8> {
        let Self { format, collection: CollectionId(collection), fields } = self;
        let encoded = rmp_serde::to_vec(&StoredMeta { format, collection, fields });
        encoded.expect("numbers, bytes and strings always encode")
    }

    /// Decodes it from its arena.
    pub fn decode(bytes: &[u8]) -> Result<Self, rmp_serde::decode::Error> {
        let StoredMeta { format, collection, fields } = rmp_serde::from_slice(bytes)?;
        Ok(Self { format, collection: CollectionId(collection), fields })
    }
}

/// The names of all fields fit into the entry.
const _: () = {
    let field = vecino_model::limits::NAME_BYTES_MAX + 5;
    assert!(vecino_model::limits::FIELDS_MAX * field + 64 <= ENTRY_BYTES_MAX);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_snapshot_is_of_has_the_bytes_that_it_always_had() {
        let encoded =
            Meta { format: 1, collection: CollectionId([7; 16]), fields: vec![String::new(), "ab".to_owned()] };
        let bytes = [&[0x93, 1, 0xc4, 16], [7; 16].as_slice(), &[0x92, 0xa0, 0xa2, b'a', b'b']].concat();
        assert_eq!(Meta::decode(&bytes).unwrap(), encoded);
        assert_eq!(encoded.encode(), bytes);
    }
}
