//! Dense vectors, and the vectors of a point by field.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A dense vector of f32. Travels as one MessagePack `bin` of little-endian f32, never as an array of floats.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Vector(pub Vec<f32>);

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

/// Vectors of a point by field name; the unnamed, default field is `""`.
pub type Fields = BTreeMap<String, Vector>;
