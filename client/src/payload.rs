//! Payloads in one line.

/// A [`Payload`](crate::Payload) from keys and values: everything that is a [`Value`](crate::Value) by `From`, such as text,
/// numbers, `bool`, lists and `Option`.
///
/// ```
/// use vecino_client::{Value, payload};
///
/// let payload = payload! { "title": "Río", "year": 1991, "tags": ["drama"], "rating": None::<f64> };
/// assert_eq!(payload["year"], Value::Int(1991));
/// assert_eq!(payload["rating"], Value::Null);
/// ```
///
/// A struct becomes a payload by [`payload_of`](crate::payload_of).
#[macro_export]
macro_rules! payload {
    ($($key:literal : $value:expr),* $(,)?) => {
        $crate::Payload::from([$((::std::string::String::from($key), $crate::Value::from($value))),*])
    };
}
