//! Dense vectors, and the vectors of a point by field.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A dense vector of f32. Travels as one MessagePack `bin` of little-endian f32, never as an array of floats.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Vector(pub Vec<f32>);

impl Vector {
    /// Its Euclidean norm; not finite where a value is not.
    pub fn norm(&self) -> f64 {
        // In lanes: one sum would wait for each addition before the next.
        let (chunks, rest) = self.0.as_chunks::<8>();
        let mut sums = [0.0f64; 8];
        for chunk in chunks {
            for (sum, value) in sums.iter_mut().zip(chunk) {
                *sum += f64::from(*value) * f64::from(*value);
            }
        }
        for (sum, value) in sums.iter_mut().zip(rest) {
            *sum += f64::from(*value) * f64::from(*value);
        }
        sums.iter().sum::<f64>().sqrt()
    }
}

/// Little-endian f32 values, one after another: how vectors travel and lie on disk.
pub fn le_bytes(values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; size_of_val(values)];
    for (to, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(values) {
        *to = value.to_le_bytes();
    }
    bytes
}

impl Serialize for Vector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&le_bytes(&self.0))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_norm_counts_every_value_whatever_the_length() {
        for len in 0..40u32 {
            let values: Vec<f32> = (1..=len).map(|value| value as f32).collect();
            let expected = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            assert_eq!(Vector(values).norm(), expected, "{len} values");
        }
        assert_eq!(Vector(vec![2f32.powi(127); 1 << 16]).norm(), 2f64.powi(135), "what f32 could not hold");
        for (at, value) in [(0, f32::NAN), (12, f32::INFINITY), (7, f32::NEG_INFINITY)] {
            let mut values = vec![1.0; 13];
            values[at] = value;
            assert!(!Vector(values).norm().is_finite(), "{value} at {at}");
        }
    }

    #[test]
    fn bytes_are_little_endian_one_value_after_another() {
        assert_eq!(le_bytes(&[1.0, -2.5]), [0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0]);
        assert!(le_bytes(&[]).is_empty());
    }
}
