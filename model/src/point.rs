//! Points and their ids, as clients write and read them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Fields, Payload, Version};

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

/// A point as a client writes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Its id.
    pub id: PointId,
    /// Its vectors: of the schema's fields one or more.
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{Value, Vector};

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
}
