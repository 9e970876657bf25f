//! JSON and the wire model: the shapes of ids, vectors and points. Payloads and their values are converted by
//! [`vecino_client::payload_from_json`] and its inverse.

use std::fmt;

use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use vecino_client::{Fields, JsonPayloadError, Payload, PointId, Vector};
use vecino_net::model::DEFAULT_FIELD;

/// Text that is no payload.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// It is no JSON.
    #[error("payload is no JSON: {0}")]
    Syntax(#[from] serde_json::Error),
    /// It is JSON, but no payload.
    #[error(transparent)]
    Json(#[from] JsonPayloadError),
}

/// A payload from the text of a JSON object.
pub fn payload_from_text(text: &str) -> Result<Payload, PayloadError> {
    Ok(vecino_client::payload_from_json(serde_json::from_str(text)?)?)
}

/// A point as one line of a `.jsonl` file. Writing it and reading it gives the same f32, bit for bit.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointLine {
    /// Its id; absent means the row number.
    #[serde(default)]
    pub id: Option<PointId>,
    /// Its vector, or its vectors by field.
    pub vector: VectorsJson,
    /// What it carries beside them.
    #[serde(default)]
    pub payload: Option<serde_json::Value>,
}

/// The vectors of a point as JSON: `[…]` when there is only the unnamed field, `{"field": […]}` otherwise.
#[derive(Debug, PartialEq)]
pub struct VectorsJson(pub Fields);

impl<'de> Deserialize<'de> for VectorsJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Vectors;
        // Not an untagged enum: that would read numbers as f64 first and round twice.
        impl<'de> Visitor<'de> for Vectors {
            type Value = VectorsJson;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a vector [0.1, …] or vectors by field {\"field\": [0.1, …]}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<VectorsJson, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = sequence.next_element::<f32>()? {
                    values.push(value);
                }
                Ok(VectorsJson(Fields::from([(DEFAULT_FIELD.to_owned(), Vector(values))])))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<VectorsJson, A::Error> {
                let mut fields = Fields::new();
                while let Some((field, values)) = map.next_entry::<String, Vec<f32>>()? {
                    if fields.insert(field.clone(), Vector(values)).is_some() {
                        return Err(serde::de::Error::custom(format_args!("vector field {field:?} is there twice")));
                    }
                }
                Ok(VectorsJson(fields))
            }
        }
        deserializer.deserialize_any(Vectors)
    }
}

/// Vectors to be written as JSON; see [`VectorsJson`].
#[derive(Debug, Clone, Copy)]
pub struct VectorsRef<'a>(pub &'a Fields);

impl Serialize for VectorsRef<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.get(DEFAULT_FIELD) {
            Some(Vector(values)) if self.0.len() == 1 => values.serialize(serializer),
            _ => {
                let mut map = serializer.serialize_map(Some(self.0.len()))?;
                for (field, Vector(values)) in self.0 {
                    map.serialize_entry(field, values)?;
                }
                map.end()
            }
        }
    }
}

/// A payload to be written as JSON.
#[derive(Debug, Clone, Copy)]
pub struct PayloadRef<'a>(pub &'a Payload);

impl Serialize for PayloadRef<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        vecino_client::payload_to_json(self.0).serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vecino_client::Value;

    use super::*;

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            (1 << 63..=u64::MAX).prop_map(Value::UInt),
            any::<f64>().prop_filter("finite", |float| float.is_finite()).prop_map(Value::Float),
            any::<String>().prop_map(Value::Text),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::List),
                prop::collection::btree_map(any::<String>(), inner, 0..6).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_payload_survives_json_text(payload in prop::collection::btree_map(any::<String>(), any_value(), 0..6)) {
            let text = serde_json::to_string(&PayloadRef(&payload)).unwrap();
            prop_assert_eq!(payload_from_text(&text).unwrap(), payload);
        }

        #[test]
        fn vectors_survive_json_text_bit_for_bit(
            bits in prop::collection::vec(any::<u32>(), 1..40),
            named in any::<bool>(),
        ) {
            let values: Vec<f32> = bits.into_iter().map(f32::from_bits).filter(|value| value.is_finite()).collect();
            let field = if named { "image" } else { DEFAULT_FIELD };
            let fields = Fields::from([(field.to_owned(), Vector(values.clone()))]);
            let text = serde_json::to_string(&VectorsRef(&fields)).unwrap();
            prop_assert_eq!(text.starts_with('{'), named);
            let VectorsJson(read) = serde_json::from_str(&text).unwrap();
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&read[field].0), bits(&values));
        }
    }

    #[test]
    fn integers_and_floats_are_kept_apart() {
        let payload = payload_from_text(
            r#"{"a":2,"b":2.0,"c":-9223372036854775808,"d":9223372036854775808,"e":18446744073709551615,"f":1e3}"#,
        )
        .unwrap();
        assert_eq!(payload["a"], Value::Int(2));
        assert_eq!(payload["b"], Value::Float(2.0));
        assert_eq!(payload["c"], Value::Int(i64::MIN));
        assert_eq!(payload["d"], Value::UInt(1 << 63));
        assert_eq!(payload["e"], Value::UInt(u64::MAX));
        assert_eq!(payload["f"], Value::Float(1000.0));
        assert_eq!(
            serde_json::to_string(&PayloadRef(&payload)).unwrap(),
            r#"{"a":2,"b":2.0,"c":-9223372036854775808,"d":9223372036854775808,"e":18446744073709551615,"f":1000.0}"#
        );
    }

    #[test]
    fn a_payload_that_is_no_object_is_refused() {
        for (text, message) in [
            ("[1]", "payload is a list, not a JSON object such as {\"title\": \"…\"}"),
            ("7", "payload is a number, not a JSON object such as {\"title\": \"…\"}"),
            ("{", "payload is no JSON: EOF while parsing an object at line 1 column 1"),
            (r#"{"a":NaN}"#, "payload is no JSON: expected value at line 1 column 6"),
            (r#"{"a":1e999}"#, "payload is no JSON: number out of range at line 1 column 10"),
        ] {
            assert_eq!(payload_from_text(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_float_that_json_has_no_word_for_becomes_null() {
        let payload = Payload::from([("a".into(), Value::List(vec![Value::Float(f64::NAN)]))]);
        assert_eq!(serde_json::to_string(&PayloadRef(&payload)).unwrap(), r#"{"a":[null]}"#);
    }

    #[test]
    fn a_vector_beyond_32_bits_is_refused() {
        for text in ["[1e39]", "[-1e39]", "{\"a\":[1e60]}", "[null]", "\"x\"", "[\"1\"]", "{\"a\":[1],\"a\":[2]}"] {
            assert!(serde_json::from_str::<VectorsJson>(text).is_err(), "{text}");
        }
        let VectorsJson(fields) = serde_json::from_str("[1, -2, 3.5, 1e-60]").unwrap();
        assert_eq!(fields[DEFAULT_FIELD].0, [1.0, -2.0, 3.5, 0.0]);
    }
}
