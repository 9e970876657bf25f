//! The types whose encodings lie on disk. They are converted where they are written and read, and nothing else uses them.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use vecino_model::{Fields, NodeId, PointId, RawPayload, Record, RecordValue, Vector, Version, le_bytes};

use crate::record::entry::SnapshotEntry;

/// One version of one point in the log.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredRecord<'a> {
    id: StoredId<'a>,
    version: StoredVersion,
    #[serde(borrow)]
    value: Option<StoredValue<'a>>,
}

#[derive(Serialize, Deserialize)]
struct StoredValue<'a> {
    vectors: StoredVectors<'a>,
    #[serde(borrow, with = "serde_bytes")]
    payload: Cow<'a, [u8]>,
}

/// One slot or tombstone in a snapshot.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredEntry<'a> {
    id: StoredId<'a>,
    version: StoredVersion,
    slot: Option<u32>,
    #[serde(borrow, with = "serde_bytes")]
    payload: Cow<'a, [u8]>,
}

#[derive(Serialize, Deserialize)]
struct StoredVersion {
    time: u64,
    #[serde(with = "serde_bytes")]
    node: [u8; 16],
    /// Left out where it is 0, as in what was written before there was one.
    #[serde(default, skip_serializing_if = "is_zero")]
    seq: u64,
}

fn is_zero(seq: &u64) -> bool {
    *seq == 0
}

/// A number or a string.
enum StoredId<'a> {
    Number(u64),
    Text(Cow<'a, str>),
}

/// A map from the names of fields to [`StoredVector`]s. Kept as it is in memory: a record is encoded for each put.
struct StoredVectors<'a>(Cow<'a, Fields>);

/// Little-endian f32 values, one after another in a `bin`.
struct StoredVector<'a>(Cow<'a, [f32]>);

// ------------------------------------------------------------------------------------------------------- conversions

impl<'a> From<&'a Record> for StoredRecord<'a> {
    fn from(record: &'a Record) -> Self {
        let Record { id, version, value } = record;
        Self { id: id.into(), version: (*version).into(), value: value.as_ref().map(StoredValue::from) }
    }
}

impl From<StoredRecord<'_>> for Record {
    fn from(stored: StoredRecord<'_>) -> Self {
        let StoredRecord { id, version, value } = stored;
        Self { id: id.into(), version: version.into(), value: value.map(RecordValue::from) }
    }
}

impl<'a> From<&'a RecordValue> for StoredValue<'a> {
    fn from(value: &'a RecordValue) -> Self {
        let RecordValue { vectors, payload } = value;
        Self { vectors: StoredVectors(Cow::Borrowed(vectors)), payload: Cow::Borrowed(payload.as_bytes()) }
    }
}

impl From<StoredValue<'_>> for RecordValue {
    fn from(stored: StoredValue<'_>) -> Self {
        let StoredValue { vectors: StoredVectors(vectors), payload } = stored;
        Self { vectors: vectors.into_owned(), payload: RawPayload::from_bytes(payload.into_owned()) }
    }
}

impl<'a> From<&'a SnapshotEntry<'a>> for StoredEntry<'a> {
    fn from(entry: &'a SnapshotEntry<'a>) -> Self {
        let SnapshotEntry { id, version, slot, payload } = entry;
        Self { id: (&**id).into(), version: (*version).into(), slot: *slot, payload: Cow::Borrowed(payload) }
    }
}

impl From<StoredEntry<'_>> for SnapshotEntry<'static> {
    fn from(stored: StoredEntry<'_>) -> Self {
        let StoredEntry { id, version, slot, payload } = stored;
        let (id, payload) = (Cow::Owned(id.into()), Cow::Owned(payload.into_owned()));
        Self { id, version: version.into(), slot, payload }
    }
}

impl From<Version> for StoredVersion {
    fn from(version: Version) -> Self {
        let Version { time, node, seq } = version;
        Self { time, node: *node.as_bytes(), seq }
    }
}

impl From<StoredVersion> for Version {
    fn from(stored: StoredVersion) -> Self {
        let StoredVersion { time, node, seq } = stored;
        Self { time, node: NodeId::from_bytes(node), seq }
    }
}

impl<'a> From<&'a PointId> for StoredId<'a> {
    fn from(id: &'a PointId) -> Self {
        match id {
            PointId::Number(number) => Self::Number(*number),
            PointId::Text(text) => Self::Text(Cow::Borrowed(text)),
        }
    }
}

impl From<StoredId<'_>> for PointId {
    fn from(stored: StoredId<'_>) -> Self {
        match stored {
            StoredId::Number(number) => Self::Number(number),
            StoredId::Text(text) => Self::Text(text.into_owned()),
        }
    }
}

impl<'a> From<&'a Vector> for StoredVector<'a> {
    fn from(vector: &'a Vector) -> Self {
        let Vector(values) = vector;
        Self(Cow::Borrowed(values))
    }
}

impl From<StoredVector<'_>> for Vector {
    fn from(stored: StoredVector<'_>) -> Self {
        let StoredVector(values) = stored;
        Self(values.into_owned())
    }
}

// --------------------------------------------------------------------------------------------------------- encodings

impl Serialize for StoredId<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_u64(*number),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for StoredId<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = StoredId<'static>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the id of a point, a number or a string")
            }

            fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
                Ok(StoredId::Number(number))
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Self::Value, E> {
                let negative = |_| E::invalid_value(serde::de::Unexpected::Signed(number), &self);
                u64::try_from(number).map(StoredId::Number).map_err(negative)
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(StoredId::Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Serialize for StoredVectors<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(vectors) = self;
        serializer.collect_map(vectors.iter().map(|(field, vector)| (field, StoredVector::from(vector))))
    }
}

impl<'de> Deserialize<'de> for StoredVectors<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from the names of fields to vectors")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut vectors = Fields::new();
                while let Some((field, vector)) = map.next_entry::<String, StoredVector<'_>>()? {
                    vectors.insert(field, vector.into());
                }
                Ok(vectors)
            }
        }
        Ok(Self(Cow::Owned(deserializer.deserialize_map(Visitor)?)))
    }
}

impl Serialize for StoredVector<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&le_bytes(&self.0))
    }
}

impl<'de> Deserialize<'de> for StoredVector<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = StoredVector<'static>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("little-endian f32 values in a bin")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                let (values, rest) = bytes.as_chunks::<4>();
                if !rest.is_empty() {
                    let told = format_args!("a vector of {} bytes is not a whole number of f32", bytes.len());
                    return Err(E::custom(told));
                }
                Ok(StoredVector(values.iter().map(|value| f32::from_le_bytes(*value)).collect()))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}
