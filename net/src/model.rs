//! The data that travel: point ids, versions, vectors, payloads, schemas.
//!
//! These are wire types (design: "core types are not wire types and not JSON types"): they say what crosses the network
//! and nothing about how a node stores it. Every struct is encoded as a MessagePack map with field names, so that an
//! unknown optional field is ignored by an older node. Limits are named constants and are checked by
//! [`crate::limits`] before anything is logged.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use vecino_certs::NodeId;

/// Id of a point inside its collection: an unsigned integer or a string of 1 to 512 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PointId {
    /// A number.
    Number(u64),
    /// A string of 1 to [`crate::limits::POINT_ID_BYTES_MAX`] bytes.
    Text(String),
}

impl fmt::Display for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

impl From<u64> for PointId {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for PointId {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// Version of a point: a hybrid logical clock timestamp and the node that stamped it, a total order over all writes.
///
/// `time` holds milliseconds since the Unix epoch in its upper 48 bits and a counter in its lower 16 (Kulkarni et al.,
/// "Logical Physical Clocks", 2014).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// Hybrid logical time.
    pub time: u64,
    /// Node that stamped the write.
    pub node: NodeId,
}

impl Version {
    /// Older than every stamped version.
    pub const ZERO: Self = Self { time: 0, node: NodeId::from_bytes([0; 16]) };
}

/// `milliseconds.counter-node`, as shown to people and in JSON.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}-{}", self.time >> 16, self.time & 0xffff, self.node)
    }
}

/// A dense vector of f32. Travels as one MessagePack `bin` of little-endian f32, never as an array of floats.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Vector(pub Vec<f32>);

impl From<Vec<f32>> for Vector {
    fn from(values: Vec<f32>) -> Self {
        Self(values)
    }
}

impl Serialize for Vector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::with_capacity(self.0.len() * 4);
        for value in &self.0 {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        serializer.serialize_bytes(&bytes)
    }
}

impl<'de> Deserialize<'de> for Vector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Vector;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("little-endian f32 values in a bin")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Vector, E> {
                let (values, rest) = bytes.as_chunks::<4>();
                if !rest.is_empty() {
                    return Err(E::custom(format_args!(
                        "a vector of {} bytes is not a whole number of f32",
                        bytes.len()
                    )));
                }
                Ok(Vector(values.iter().map(|value| f32::from_le_bytes(*value)).collect()))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

/// One value of a payload: the JSON model, with integers kept apart from floats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// null
    Null,
    /// true or false
    Bool(bool),
    /// An integer below 2^63.
    Int(i64),
    /// An integer from 2^63 on.
    UInt(u64),
    /// A finite number with a fraction.
    Float(f64),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// A map with string keys.
    Map(BTreeMap<String, Value>),
}

/// What a point carries beside its vectors: a map of JSON-like values.
pub type Payload = BTreeMap<String, Value>;

/// Vectors of a point by field name; the unnamed, default field is `""`.
pub type Fields = BTreeMap<String, Vector>;

/// Name of the default vector field.
pub const DEFAULT_FIELD: &str = "";

/// How the similarity of two vectors is scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// Cosine of the angle, -1 to 1, higher is better. Zero vectors are refused.
    Cosine,
    /// Euclidean distance, lower is better.
    Euclidean,
    /// Inner product, higher is better.
    Dot,
    /// Manhattan (L1) distance, lower is better.
    Manhattan,
}

impl Metric {
    /// Whether a higher score is a better one.
    pub fn higher_is_better(self) -> bool {
        matches!(self, Self::Cosine | Self::Dot)
    }

    /// Lower-case name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Euclidean => "euclidean",
            Self::Dot => "dot",
            Self::Manhattan => "manhattan",
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Metric {
    type Err = UnknownMetric;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Cosine, Self::Euclidean, Self::Dot, Self::Manhattan]
            .into_iter()
            .find(|metric| metric.name() == text)
            .ok_or_else(|| UnknownMetric(text.to_owned()))
    }
}

/// A metric name that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("metric {0:?} is unknown: use cosine, euclidean, dot or manhattan")]
pub struct UnknownMetric(String);

/// What a vector field's index keeps beside the vectors, and so how fast and how large it is. Every profile ranks its last
/// candidates by the vectors themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Codes of one bit a dimension beside every link, and of four bits beside every vector: the fastest.
    #[default]
    Fast,
    /// Codes of four bits a dimension beside every vector: the smallest.
    Compact,
    /// No codes: searches go by the vectors, and as far as these tell. The reference.
    Plain,
}

impl Profile {
    /// Lower-case name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Compact => "compact",
            Self::Plain => "plain",
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = [Self::Fast, Self::Compact, Self::Plain];
        known.into_iter().find(|profile| profile.name() == text).ok_or_else(|| UnknownProfile(text.to_owned()))
    }
}

/// A profile name that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("profile {0:?} is unknown: use fast, compact or plain")]
pub struct UnknownProfile(String);

/// Schema of one vector field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldSchema {
    /// Number of f32 in each vector, 1 to [`crate::limits::DIM_MAX`].
    pub dim: u32,
    /// How vectors of this field are compared.
    pub metric: Metric,
    /// HNSW `M`: links of a node on the upper layers; layer 0 has twice as many.
    pub m: u32,
    /// HNSW `efConstruction`: candidates kept while a point is linked.
    pub ef_construction: u32,
    /// What the index keeps beside the vectors.
    #[serde(default)]
    pub profile: Profile,
}

/// When a write counts as durable on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fsync {
    /// After the log was flushed to the device (default).
    Always,
    /// Once written; flushed every so many milliseconds. A crash of the machine may lose that much.
    EveryMs(u32),
    /// Once written; flushed when the operating system likes.
    Never,
}

/// What a collection is: its vector fields and how many nodes keep each point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionSchema {
    /// Vector fields by name; the default field is `""`.
    pub fields: BTreeMap<String, FieldSchema>,
    /// Number of distinct nodes that keep each point.
    pub replication_factor: u32,
    /// When a write counts as durable on one node.
    pub fsync: Fsync,
}

/// Id of a collection, new each time one is created: 16 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CollectionId(#[serde(with = "serde_bytes")] pub [u8; 16]);

impl fmt::Display for CollectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CollectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CollectionId({self})")
    }
}

/// A point as a client writes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Its id.
    pub id: PointId,
    /// Its vectors; every field of the schema must be there.
    pub vectors: Fields,
    /// What it carries beside them.
    #[serde(default)]
    pub payload: Payload,
}

/// A point as it was read back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredPoint {
    /// Its id.
    pub id: PointId,
    /// Its vectors, exactly as they were put; empty when they were not asked for.
    pub vectors: Fields,
    /// Its payload; empty when it was not asked for.
    #[serde(default)]
    pub payload: Payload,
    /// Version of the write that this is.
    pub version: Version,
}

/// How many replicas an operation waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// One replica: fast, eventually consistent.
    One,
    /// A majority of the replicas: a linearizable register per point.
    #[default]
    Quorum,
    /// Every replica.
    All,
}

impl Level {
    /// How many of `replicas` replicas this level waits for.
    pub fn required(self, replicas: usize) -> usize {
        match self {
            Self::One => 1.min(replicas),
            Self::Quorum => replicas / 2 + 1,
            Self::All => replicas,
        }
    }

    /// Lower-case name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Quorum => "quorum",
            Self::All => "all",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::One, Self::Quorum, Self::All]
            .into_iter()
            .find(|level| level.name() == text)
            .ok_or_else(|| UnknownLevel(text.to_owned()))
    }
}

/// A consistency level that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("level {0:?} is unknown: use one, quorum or all")]
pub struct UnknownLevel(String);

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<T: Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
        rmp_serde::from_slice(&rmp_serde::to_vec_named(value).unwrap()).unwrap()
    }

    #[test]
    fn a_vector_travels_as_one_bin() {
        let vector = Vector(vec![1.0, -2.5, f32::MIN_POSITIVE]);
        let bytes = rmp_serde::to_vec_named(&vector).unwrap();
        assert_eq!(bytes[..2], [0xc4, 12], "bin8 of 12 bytes");
        assert_eq!(round_trip(&vector), vector);
        assert!(rmp_serde::from_slice::<Vector>(&[0xc4, 3, 0, 0, 0]).is_err());
    }

    #[test]
    fn a_point_survives_the_wire() {
        let payload = Payload::from([
            ("null".into(), Value::Null),
            ("int".into(), Value::Int(-7)),
            ("big".into(), Value::UInt(u64::MAX)),
            ("float".into(), Value::Float(2.0)),
            ("list".into(), Value::List(vec![Value::Bool(true), Value::Text("x".into())])),
            ("map".into(), Value::Map(BTreeMap::from([("k".into(), Value::Int(1))]))),
        ]);
        let point = Point { id: "a".into(), vectors: Fields::from([(String::new(), Vector(vec![0.5]))]), payload };
        assert_eq!(round_trip(&point), point);
        assert_eq!(round_trip(&PointId::Number(u64::MAX)), PointId::Number(u64::MAX));
    }

    #[test]
    fn quorums_intersect() {
        for replicas in 1..=9 {
            let quorum = Level::Quorum.required(replicas);
            assert!(2 * quorum > replicas && quorum <= replicas, "{quorum} of {replicas}");
        }
    }
}
