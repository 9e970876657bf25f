//! Encoding and decoding of records and snapshot entries.

use std::ops::Range;

use serde::Serialize;
use vecino_model::{Record, limits};

use crate::record::entry::SnapshotEntry;
use crate::record::stored::{StoredEntry, StoredRecord};

/// Longest snapshot entry that is read.
pub const ENTRY_BYTES_MAX: usize = 1024 * 1024;

/// Every point that is admitted fits into a snapshot entry, and into a record beside its vectors.
const _: () = {
    let beside_vectors = limits::PAYLOAD_BYTES_MAX + limits::POINT_ID_BYTES_MAX + ENCODING_BYTES;
    assert!(beside_vectors <= ENTRY_BYTES_MAX);
    let vector = limits::DIM_MAX as usize * size_of::<f32>() + limits::NAME_BYTES_MAX + ENCODING_BYTES;
    assert!(beside_vectors + limits::FIELDS_MAX * vector <= vecino_storage::RECORD_BYTES_MAX);
};

/// About what the encoding adds to a record of one vector.
const ENCODING_BYTES: usize = 64;

/// About how many bytes a record takes in the log.
pub fn encoded_bytes(record: &Record) -> usize {
    record.bytes() + ENCODING_BYTES
}

/// A record that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("record is not what this version writes: {0}")]
pub struct DecodeError(#[from] rmp_serde::decode::Error);

/// Encodes a record for the log.
pub fn encode(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_behind(record, &mut bytes);
    bytes
}

/// Encodes a record for the log behind what is there; says where it lies.
pub fn encode_behind(record: &Record, bytes: &mut Vec<u8>) -> Range<usize> {
    let start = bytes.len();
    let mut serializer = rmp_serde::Serializer::new(&mut *bytes);
    let encoded = StoredRecord::from(record).serialize(&mut serializer);
    encoded.expect("a record of strings, numbers and bytes always encodes");
    start..bytes.len()
}

/// Decodes a record from the log.
pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    Ok(rmp_serde::from_slice::<StoredRecord<'_>>(bytes)?.into())
}

/// Encodes an entry of a snapshot.
pub fn encode_entry(entry: &SnapshotEntry<'_>) -> Vec<u8> {
    rmp_serde::to_vec(&StoredEntry::from(entry)).expect("an entry of strings, numbers and bytes always encodes")
}

/// Decodes an entry of a snapshot.
pub fn decode_entry(bytes: &[u8]) -> Result<SnapshotEntry<'static>, DecodeError> {
    Ok(rmp_serde::from_slice::<StoredEntry<'_>>(bytes)?.into())
}
#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use vecino_model::{NodeId, PointId, RawPayload, RecordValue, Vector, Version};

    use super::*;

    proptest! {
        #[test]
        fn a_record_survives_the_log(
            id in prop_oneof![any::<u64>().prop_map(PointId::Number), "[a-zé]{1,20}".prop_map(PointId::Text)],
            time in any::<u64>(),
            values in prop::option::of(prop::collection::vec(any::<f32>(), 0..20)),
        ) {
            let value = values.map(|values| RecordValue {
                vectors: BTreeMap::from([("image".to_owned(), Vector(values))]),
                payload: RawPayload::default(),
            });
            let record = Record { id, version: Version { time, node: NodeId::from_bytes([9; 16]), seq: 0 }, value };
            let back = decode(&encode(&record)).unwrap();
            // Bytes, since a NaN equals nothing.
            prop_assert_eq!(encode(&back), encode(&record));
        }

        #[test]
        fn names_of_fields_may_be_there(time in any::<u64>(), slot in prop::option::of(any::<u32>())) {
            let version = Version { time, node: NodeId::from_bytes([9; 16]), seq: 0 };
            let record = Record { id: 7.into(), version, value: None };
            let named = decode(&rmp_serde::to_vec_named(&StoredRecord::from(&record)).unwrap()).unwrap();
            prop_assert_eq!(named, record);
            let entry =
                SnapshotEntry { id: Cow::Owned(7.into()), version, slot, payload: Cow::Borrowed([0x80].as_slice()) };
            for bytes in [encode_entry(&entry), rmp_serde::to_vec_named(&StoredEntry::from(&entry)).unwrap()] {
                prop_assert_eq!(&decode_entry(&bytes).unwrap(), &entry);
            }
        }

        #[test]
        fn garbage_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            // That these are a record by chance is less likely than one in 2^40.
            prop_assert!(decode(&bytes).is_err());
        }

        #[test]
        fn a_record_that_was_cut_off_is_an_error(
            time in any::<u64>(),
            values in prop::collection::vec(any::<f32>(), 0..20),
            kept in any::<prop::sample::Index>(),
        ) {
            let vectors = BTreeMap::from([("image".to_owned(), Vector(values))]);
            let value = Some(RecordValue { vectors, payload: RawPayload::default() });
            let version = Version { time, node: NodeId::from_bytes([9; 16]), seq: 0 };
            let encoded = encode(&Record { id: 7.into(), version, value });
            prop_assert!(decode(&encoded[..kept.index(encoded.len())]).is_err());
        }
    }

    /// What the code wrote that stored the types that travel.
    #[test]
    fn records_and_entries_have_the_bytes_that_they_always_had() {
        let node = NodeId::from_bytes([9; 16]);
        let version = Version { time: 0x0102_0304_0506_0708, node, seq: 0 };
        let stamp = [&[0x92, 0xcf, 1, 2, 3, 4, 5, 6, 7, 8, 0xc4, 16], [9; 16].as_slice()].concat();
        let vectors =
            BTreeMap::from([(String::new(), Vector(vec![1.0])), ("image".to_owned(), Vector(vec![-0.0, f32::MAX]))]);
        let value = Some(RecordValue { vectors, payload: RawPayload::from_bytes([0x81, 0xa1, b'k', 0xc0]) });
        let image = [0xc4, 8, 0, 0, 0, 0x80, 0xff, 0xff, 0x7f, 0x7f];
        let live: Vec<u8> = [
            &[0x93, 0xa2, b'i', b'd'],
            stamp.as_slice(),
            &[0x92, 0x82, 0xa0, 0xc4, 4, 0, 0, 0x80, 0x3f, 0xa5],
            b"image",
            &image,
            &[0xc4, 4, 0x81, 0xa1, b'k', 0xc0],
        ]
        .concat();
        let record = Record { id: "id".into(), version, value };
        assert_eq!(encode(&record), live);
        assert_eq!(decode(&live).unwrap(), record);
        let deleted = Record { id: 300.into(), version, value: None };
        let tombstone = [&[0x93, 0xcd, 1, 44], stamp.as_slice(), &[0xc0]].concat();
        assert_eq!(encode(&deleted), tombstone);
        assert_eq!(decode(&tombstone).unwrap(), deleted);
        for (slot, written) in [(Some(7), &[7, 0xc4, 1, 0x80][..]), (None, &[0xc0, 0xc4, 1, 0x80])] {
            let entry = SnapshotEntry { id: Cow::Owned(7.into()), version, slot, payload: Cow::Borrowed(&[0x80]) };
            let bytes = [&[0x94, 7], stamp.as_slice(), written].concat();
            assert_eq!(encode_entry(&entry), bytes);
            assert_eq!(decode_entry(&bytes).unwrap(), entry);
        }
    }
}
