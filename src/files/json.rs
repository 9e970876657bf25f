//! JSON and the wire model: the shapes of ids, vectors and points. Payloads and their values are converted by
//! [`vecino_client::payload_from_json`] and its inverse.

use std::fmt;

use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use vecino_client::{Fields, JsonPayloadError, Payload, PointId, Vector};
use vecino_model::DEFAULT_FIELD;

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

/// The number that an id is, where it is written as one: `0`, or digits that do not begin with 0 and fit 64 bits.
/// All other text (`007`, `-5`, `1.5`) is an id that is text.
pub fn canonical_number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    // Whatever else the parser takes, a sign or zeros in front, is not how the number is written.
    (number.to_string() == text).then_some(number)
}

/// A point as one line of a `.jsonl` file. Writing it and reading it gives the same f32, bit for bit.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointLine {
    /// Its id; absent means the row number.
    #[serde(default, deserialize_with = "id_from_json")]
    pub id: Option<PointId>,
    /// Its vector, or its vectors by field.
    pub vector: VectorsJson,
    /// What it carries beside them.
    #[serde(default)]
    pub payload: Option<serde_json::Value>,
}

/// An id: a whole number of 64 bits, or text. `null` is no id, as if it were absent.
fn id_from_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PointId>, D::Error> {
    struct Id;
    impl<'de> Visitor<'de> for Id {
        type Value = Option<PointId>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "an id: a whole number from 0 to {}, or text", u64::MAX)
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_u64<E>(self, id: u64) -> Result<Self::Value, E> {
            Ok(Some(PointId::Number(id)))
        }

        fn visit_i64<E: serde::de::Error>(self, id: i64) -> Result<Self::Value, E> {
            match u64::try_from(id) {
                Ok(id) => self.visit_u64(id),
                Err(_) => Err(E::custom(format_args!("id {id} is negative: {}", or_text(id)))),
            }
        }

        fn visit_f64<E: serde::de::Error>(self, id: f64) -> Result<Self::Value, E> {
            let wrong = if id.fract() == 0.0 { "does not fit 64 bits" } else { "is not a whole number" };
            let id = serde_json::Value::from(id);
            Err(E::custom(format_args!("id {id} {wrong}: {}", or_text(&id))))
        }

        fn visit_str<E>(self, id: &str) -> Result<Self::Value, E> {
            Ok(Some(PointId::Text(id.to_owned())))
        }
    }
    deserializer.deserialize_any(Id)
}

/// What an id may be, and how to write one that is no such number.
fn or_text(id: impl fmt::Display) -> String {
    format!("an id is a whole number from 0 to {}, or text (\"{id}\")", u64::MAX)
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
    fn only_canonical_digits_are_a_number() {
        for (text, number) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("007", None),
            ("00", None),
            ("+7", None),
            ("-5", None),
            ("-0", None),
            ("1.0", None),
            (" 7", None),
            ("", None),
        ] {
            assert_eq!(canonical_number(text), number, "{text:?}");
        }
    }

    #[test]
    fn an_id_that_is_none_says_why_and_what_to_write() {
        let id = |text: &str| {
            serde_json::from_str::<PointLine>(&format!("{{\"id\":{text},\"vector\":[1]}}"))
                .map(|line| line.id)
                .map_err(|error| error.to_string())
        };
        assert_eq!(id("7").unwrap(), Some(7.into()));
        assert_eq!(id("\"7\"").unwrap(), Some("7".into()), "what is text in a file stays text");
        assert_eq!(id("null").unwrap(), None);
        for (text, message) in [
            ("-5", "id -5 is negative: an id is a whole number from 0 to 18446744073709551615, or text (\"-5\")"),
            ("1.5", "id 1.5 is not a whole number: an id is"),
            ("1e40", "does not fit 64 bits"),
            ("18446744073709551616", "id 1.8446744073709552e+19 does not fit 64 bits"),
            ("true", "invalid type: boolean `true`, expected an id: a whole number from 0 to"),
            ("[1]", "invalid type: sequence, expected an id"),
        ] {
            let error = id(text).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
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
