//! Payloads: the JSON-like values that a point carries beside its vectors.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
