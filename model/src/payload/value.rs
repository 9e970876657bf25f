//! The values of a payload, decoded.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::PAYLOAD_DEPTH_MAX;

/// One value of a payload: the JSON model, with integers kept apart from floats.
///
/// Reading one that is nested deeper than [`PAYLOAD_DEPTH_MAX`] is an error.
#[derive(Clone, Debug, PartialEq, Serialize)]
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

/// Most values that room is made for before they were read: a length that is only claimed takes no memory.
const CAPACITY_MAX: usize = 256;

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        AtDepth(1).deserialize(deserializer)
    }
}

/// Reads a value that lies at this depth of its payload, where the values of the payload's own keys are at depth 1.
#[derive(Clone, Copy)]
struct AtDepth(usize);

impl AtDepth {
    fn inside<E: Error>(self) -> Result<Self, E> {
        let Self(depth) = self;
        if depth >= PAYLOAD_DEPTH_MAX {
            return Err(E::custom(format_args!("a payload is nested deeper than {PAYLOAD_DEPTH_MAX} levels")));
        }
        Ok(Self(depth + 1))
    }
}

impl<'de> DeserializeSeed<'de> for AtDepth {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AtDepth {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null, a boolean, a number, text, a list, or a map with text keys")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::UInt(value), Value::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        if list.size_hint() == Some(0) {
            return Ok(Value::List(Vec::new()));
        }
        let inside = self.inside()?;
        let mut values = Vec::with_capacity(list.size_hint().unwrap_or(0).min(CAPACITY_MAX));
        while let Some(value) = list.next_element_seed(inside)? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        if map.size_hint() == Some(0) {
            return Ok(Value::Map(BTreeMap::new()));
        }
        let inside = self.inside()?;
        let mut values = BTreeMap::new();
        while let Some(key) = map.next_key()? {
            values.insert(key, map.next_value_seed(inside)?);
        }
        Ok(Value::Map(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `null` inside this many lists, as the value of one key.
    fn nested(lists: usize) -> Payload {
        let list = |inside, _| Value::List(vec![inside]);
        Payload::from([("k".to_owned(), (0..lists).fold(Value::Null, list))])
    }

    #[test]
    fn values_of_every_kind_are_read_as_they_were_written() {
        let payload = Payload::from([
            ("null".to_owned(), Value::Null),
            ("int".to_owned(), Value::Int(i64::MIN)),
            ("big".to_owned(), Value::UInt(u64::MAX)),
            ("float".to_owned(), Value::Float(2.0)),
            ("list".to_owned(), Value::List(vec![Value::Bool(true), Value::List(Vec::new())])),
            ("map".to_owned(), Value::Map(Payload::from([("é".to_owned(), Value::Text("x".to_owned()))]))),
        ]);
        let bytes = rmp_serde::to_vec_named(&payload).unwrap();
        assert_eq!(rmp_serde::from_slice::<Payload>(&bytes).unwrap(), payload);
    }

    #[test]
    fn a_value_is_read_up_to_the_deepest_level_and_no_further() {
        let read = |lists| rmp_serde::from_slice::<Payload>(&rmp_serde::to_vec_named(&nested(lists)).unwrap());
        assert_eq!(read(PAYLOAD_DEPTH_MAX - 1).unwrap(), nested(PAYLOAD_DEPTH_MAX - 1));
        let error = read(PAYLOAD_DEPTH_MAX).unwrap_err().to_string();
        assert!(error.contains("deeper than 16 levels"), "{error}");
    }
}
