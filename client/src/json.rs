//! Payloads from and to JSON.

use serde_json::{Map, Number};
use vecino_model::{Payload, Value};

/// A JSON value that is no payload.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonPayloadError {
    /// It is no object.
    #[error("payload is {0}, not a JSON object such as {{\"title\": \"…\"}}")]
    NotAnObject(&'static str),
    /// A number has no representation.
    #[error("payload has the number {0}, which is beyond 64-bit integers and floats")]
    Number(Number),
}

/// The payload that a JSON object describes. Integers stay integers, others become floats.
///
/// # Errors
/// When it is no object.
pub fn payload_from_json(json: serde_json::Value) -> Result<Payload, JsonPayloadError> {
    let kind = match json {
        serde_json::Value::Object(map) => {
            return map.into_iter().map(|(key, value)| Ok((key, value_from_json(value)?))).collect();
        }
        serde_json::Value::Null => "null",
        serde_json::Value::Bool(_) => "a boolean",
        serde_json::Value::Number(_) => "a number",
        serde_json::Value::String(_) => "a string",
        serde_json::Value::Array(_) => "a list",
    };
    Err(JsonPayloadError::NotAnObject(kind))
}

/// The JSON object that describes a payload.
pub fn payload_to_json(payload: &Payload) -> serde_json::Value {
    serde_json::Value::Object(map_to_json(payload))
}

fn value_from_json(json: serde_json::Value) -> Result<Value, JsonPayloadError> {
    Ok(match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(value) => Value::Bool(value),
        serde_json::Value::Number(number) => {
            let integer = number.as_i64().map(Value::Int).or_else(|| number.as_u64().map(Value::UInt));
            let value = integer.or_else(|| number.as_f64().filter(|value| value.is_finite()).map(Value::Float));
            value.ok_or(JsonPayloadError::Number(number))?
        }
        serde_json::Value::String(value) => Value::Text(value),
        serde_json::Value::Array(values) => {
            Value::List(values.into_iter().map(value_from_json).collect::<Result<_, _>>()?)
        }
        serde_json::Value::Object(map) => Value::Map(payload_from_json(serde_json::Value::Object(map))?),
    })
}

fn map_to_json(map: &Payload) -> Map<String, serde_json::Value> {
    map.iter().map(|(key, value)| (key.clone(), value_to_json(value))).collect()
}

fn value_to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::UInt(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::Text(value) => value.as_str().into(),
        Value::List(values) => values.iter().map(value_to_json).collect(),
        Value::Map(map) => serde_json::Value::Object(map_to_json(map)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_survives_being_a_payload() {
        let text = json!({
            "title": "…", "year": 1999, "big": u64::MAX, "negative": i64::MIN, "score": 0.5, "whole": 2.0,
            "tags": ["a", null, true, {"deep": [[]]}], "empty": {},
        });
        let payload = payload_from_json(text.clone()).unwrap();
        assert_eq!(payload["year"], Value::Int(1999));
        assert_eq!(payload["big"], Value::UInt(u64::MAX));
        assert_eq!(payload["whole"], Value::Float(2.0));
        assert_eq!(payload_to_json(&payload), text);
    }

    #[test]
    fn what_is_no_object_is_refused_by_name() {
        for (json, word) in [(json!([1]), "a list"), (json!("x"), "a string"), (json!(null), "null")] {
            assert!(payload_from_json(json).unwrap_err().to_string().contains(word));
        }
    }
}
