//! What a record looks like in the log and in a snapshot.
//!
//! MessagePack without the names of fields, which would be a tenth of all that is written; a field that is added comes
//! last, and with a default. With names it is read as well. Drawn in `docs/disk.md`.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use vecino_model::{PointId, Record, RecordValue, Vector, Version};

/// One version of one point in the log.
#[derive(Serialize, Deserialize)]
struct LogRecord {
    id: PointId,
    version: Version,
    value: Option<LogValue>,
}

#[derive(Serialize, Deserialize)]
struct LogValue {
    vectors: BTreeMap<String, Vector>,
    #[serde(with = "serde_bytes")]
    payload: Vec<u8>,
}

/// The same, to be written.
#[derive(Serialize)]
struct BorrowedRecord<'a> {
    id: &'a PointId,
    version: &'a Version,
    value: Option<BorrowedValue<'a>>,
}

#[derive(Serialize)]
struct BorrowedValue<'a> {
    vectors: &'a BTreeMap<String, Vector>,
    #[serde(with = "serde_bytes")]
    payload: &'a [u8],
}

/// One slot or tombstone in a snapshot; the vectors are in the index's own arenas.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotEntry {
    /// The point.
    pub id: PointId,
    /// Its version.
    pub version: Version,
    /// Its slot; absent for a tombstone.
    pub slot: Option<u32>,
    /// Its payload as MessagePack.
    #[serde(with = "serde_bytes")]
    pub payload: Vec<u8>,
}

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
    let Record { id, version, value } = record;
    let value = value.as_ref().map(|RecordValue { vectors, payload }| BorrowedValue { vectors, payload });
    let mut serializer = rmp_serde::Serializer::new(&mut *bytes);
    let encoded = BorrowedRecord { id, version, value }.serialize(&mut serializer);
    encoded.expect("a record of strings, numbers and bytes always encodes");
    start..bytes.len()
}

/// Decodes a record from the log.
pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    let LogRecord { id, version, value } = rmp_serde::from_slice(bytes)?;
    let value = value.map(|LogValue { vectors, payload }| RecordValue { vectors, payload });
    Ok(Record { id, version, value })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vecino_model::NodeId;

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
                payload: vec![0x80],
            });
            let record = Record { id, version: Version { time, node: NodeId::from_bytes([9; 16]) }, value };
            let back = decode(&encode(&record)).unwrap();
            // Bytes, since a NaN equals nothing.
            prop_assert_eq!(encode(&back), encode(&record));
        }

        #[test]
        fn names_of_fields_may_be_there(time in any::<u64>(), slot in prop::option::of(any::<u32>())) {
            let version = Version { time, node: NodeId::from_bytes([9; 16]) };
            let record = LogRecord { id: 7.into(), version, value: None };
            let named = decode(&rmp_serde::to_vec_named(&record).unwrap()).unwrap();
            prop_assert_eq!(encode(&named), rmp_serde::to_vec(&record).unwrap());
            let entry = SnapshotEntry { id: 7.into(), version, slot, payload: vec![0x80] };
            for bytes in [rmp_serde::to_vec(&entry).unwrap(), rmp_serde::to_vec_named(&entry).unwrap()] {
                prop_assert_eq!(&rmp_serde::from_slice::<SnapshotEntry>(&bytes).unwrap(), &entry);
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
            let value = Some(RecordValue { vectors, payload: vec![0x80] });
            let version = Version { time, node: NodeId::from_bytes([9; 16]) };
            let encoded = encode(&Record { id: 7.into(), version, value });
            prop_assert!(decode(&encoded[..kept.index(encoded.len())]).is_err());
        }
    }
}
