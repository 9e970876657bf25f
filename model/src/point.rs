//! Points and their ids, as clients write and read them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{DecodePayloadError, Fields, Payload, RawPayload, Version};

/// Id of a point inside its collection: an unsigned integer or a string of 1 to 512 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(untagged)]
pub enum PointId {
    /// A number.
    Number(u64),
    /// A string of 1 to [`crate::limits::POINT_ID_BYTES_MAX`] bytes.
    Text(String),
}

/// By hand: an untagged enum would first make values of whatever stands there, however large.
impl<'de> Deserialize<'de> for PointId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = PointId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id, which is a number from 0 to 2^64-1 or text")
            }

            fn visit_u64<E>(self, number: u64) -> Result<PointId, E> {
                Ok(PointId::Number(number))
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<PointId, E> {
                let refused = |_| E::invalid_value(serde::de::Unexpected::Signed(number), &self);
                u64::try_from(number).map(PointId::Number).map_err(refused)
            }

            fn visit_str<E>(self, text: &str) -> Result<PointId, E> {
                Ok(PointId::Text(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<PointId, E> {
                Ok(PointId::Text(text))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
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

impl PointId {
    /// About how many bytes it takes on its way.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Number(_) => 9,
            Self::Text(text) => text.len() + 3,
        }
    }
}

/// A point as a client writes it. With a [`RawPayload`] it is a point as it travels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point<P = Payload> {
    /// Its id.
    pub id: PointId,
    /// Its vectors: of the schema's fields one or more.
    pub vectors: Fields,
    /// What it carries beside them.
    #[serde(default)]
    pub payload: P,
}

/// A point as it was read back. With a [`RawPayload`] it is a point as it travels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredPoint<P = Payload> {
    /// Its id.
    pub id: PointId,
    /// Its vectors, exactly as they were put; empty when they were not asked for.
    pub vectors: Fields,
    /// Its payload; empty when it was not asked for.
    #[serde(default)]
    pub payload: P,
    /// Version of the write that this is.
    pub version: Version,
}

/// A point as it travels to be written.
pub type RawPoint = Point<RawPayload>;

/// A point as it travels when it was read.
pub type RawStoredPoint = StoredPoint<RawPayload>;

impl From<Point> for RawPoint {
    fn from(point: Point) -> Self {
        let Point { id, vectors, payload } = point;
        Self { id, vectors, payload: payload.into() }
    }
}

impl RawPoint {
    /// About how many bytes it takes on its way.
    pub fn bytes(&self) -> usize {
        let vectors: usize = self.vectors.values().map(|vector| vector.0.len() * 4).sum();
        self.id.bytes() + vectors + self.payload.as_bytes().len()
    }

    /// The point with its payload decoded.
    ///
    /// # Errors
    /// When the payload is none.
    pub fn decode(self) -> Result<Point, DecodePayloadError> {
        let Self { id, vectors, payload } = self;
        Ok(Point { id, vectors, payload: payload.decode()? })
    }
}

impl From<StoredPoint> for RawStoredPoint {
    fn from(point: StoredPoint) -> Self {
        let StoredPoint { id, vectors, payload, version } = point;
        Self { id, vectors, payload: payload.into(), version }
    }
}

impl RawStoredPoint {
    /// The point with its payload decoded.
    ///
    /// # Errors
    /// When the payload is none.
    pub fn decode(self) -> Result<StoredPoint, DecodePayloadError> {
        let Self { id, vectors, payload, version } = self;
        Ok(StoredPoint { id, vectors, payload: payload.decode()?, version })
    }
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
        let sent = RawPoint::from(point.clone());
        assert_eq!(round_trip(&sent), sent);
        assert_eq!(round_trip(&sent).decode().unwrap(), point);
        assert_eq!(round_trip(&PointId::Number(u64::MAX)), PointId::Number(u64::MAX));
    }
    #[test]
    fn an_id_is_a_number_or_text_and_nothing_else() {
        assert_eq!(
            rmp_serde::from_slice::<PointId>(&[0xd0, 5]).unwrap(),
            PointId::Number(5),
            "signed, and not negative"
        );
        for bytes in [&[0xff][..], &[0xc0], &[0x91, 1], &[0x80], &[0xca, 0, 0, 0, 0], &[0xc4, 1, b'a']] {
            assert!(rmp_serde::from_slice::<PointId>(bytes).is_err(), "{bytes:?}");
        }
    }
}
