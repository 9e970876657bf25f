//! Ids, vectors and payload values from the types that applications have.
//!
//! Of the integers only `u64` becomes an id by [`From`]: with a second one `point(1, …)` would no longer compile, since an
//! integer literal without a suffix would be an `i32`. Signed ones convert by [`TryFrom`].

use std::collections::BTreeMap;

use crate::payload::Value;
use crate::point::PointId;
use crate::vector::Vector;

/// A negative number where an id is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("id {0} is negative: a number that is an id is 0 to {max}; make it text to keep the sign", max = u64::MAX)]
pub struct NegativeId(i64);

impl From<u64> for PointId {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<&u64> for PointId {
    fn from(number: &u64) -> Self {
        Self::Number(*number)
    }
}

impl TryFrom<i64> for PointId {
    type Error = NegativeId;

    fn try_from(number: i64) -> Result<Self, NegativeId> {
        u64::try_from(number).map(Self::Number).map_err(|_| NegativeId(number))
    }
}

impl TryFrom<i32> for PointId {
    type Error = NegativeId;

    fn try_from(number: i32) -> Result<Self, NegativeId> {
        i64::from(number).try_into()
    }
}

impl From<&str> for PointId {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for PointId {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&String> for PointId {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<&PointId> for PointId {
    fn from(id: &PointId) -> Self {
        id.clone()
    }
}

impl From<Vec<f32>> for Vector {
    fn from(values: Vec<f32>) -> Self {
        Self(values)
    }
}

impl From<&Vec<f32>> for Vector {
    fn from(values: &Vec<f32>) -> Self {
        Self(values.clone())
    }
}

impl From<&[f32]> for Vector {
    fn from(values: &[f32]) -> Self {
        Self(values.to_vec())
    }
}

impl<const N: usize> From<[f32; N]> for Vector {
    fn from(values: [f32; N]) -> Self {
        Self(values.to_vec())
    }
}

impl<const N: usize> From<&[f32; N]> for Vector {
    fn from(values: &[f32; N]) -> Self {
        Self(values.to_vec())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<i32> for Value {
    fn from(number: i32) -> Self {
        Self::Int(number.into())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Int(number.into())
    }
}

/// Below 2^63 it is the same value as the signed number.
impl From<u64> for Value {
    fn from(number: u64) -> Self {
        i64::try_from(number).map_or(Self::UInt(number), Self::Int)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(values: Vec<T>) -> Self {
        Self::List(values.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Value>, const N: usize> From<[T; N]> for Value {
    fn from(values: [T; N]) -> Self {
        Self::List(values.into_iter().map(Into::into).collect())
    }
}

/// `None` is null.
impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl From<BTreeMap<String, Value>> for Value {
    fn from(values: BTreeMap<String, Value>) -> Self {
        Self::Map(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_from_what_applications_have() {
        let text = String::from("solaris");
        let ids: [PointId; 5] = [7.into(), (&7).into(), "solaris".into(), (&text).into(), text.into()];
        let text = || PointId::Text("solaris".into());
        assert_eq!(ids, [PointId::Number(7), PointId::Number(7), text(), text(), text()]);
        assert_eq!(PointId::try_from(5_i32), Ok(PointId::Number(5)));
        let error = PointId::try_from(-5_i64).unwrap_err().to_string();
        assert!(error.starts_with("id -5 is negative"), "{error}");
    }

    #[test]
    fn vectors_come_from_arrays_slices_and_lists() {
        let list = vec![1.0, 2.0];
        let vectors: [Vector; 5] =
            [[1.0, 2.0].into(), (&[1.0, 2.0]).into(), list[..].into(), (&list).into(), list.clone().into()];
        assert!(vectors.iter().all(|vector| vector.0 == list));
    }

    #[test]
    fn values_keep_integers_apart_from_floats() {
        assert_eq!(Value::from(1991), Value::Int(1991));
        assert_eq!((Value::from(7_u64), Value::from(u64::MAX)), (Value::Int(7), Value::UInt(u64::MAX)));
        assert_eq!(Value::from(0.5), Value::Float(0.5));
        assert_eq!(Value::from(None::<bool>), Value::Null);
        assert_eq!(Value::from(vec!["a"]), Value::List(vec![Value::Text("a".into())]));
        assert_eq!(Value::from([Some(true)]), Value::List(vec![Value::Bool(true)]));
    }
}
