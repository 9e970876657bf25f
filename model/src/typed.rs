//! Payloads from and to the structs of an application, through serde.
//!
//! Structs become maps with the names of their fields. What a payload cannot hold (bytes, keys that are no strings) is an
//! error. Types that serde writes as text for people, such as dates and UUIDs, are texts here too.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::payload::Payload;
use crate::point::StoredPoint;
use crate::search::Hit;

/// A value that is no payload, or a payload that is no such value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// The value is no payload.
    #[error("a {type_name} is no payload: {reason}; a payload is a struct or a map with text keys")]
    Encode {
        /// The value's type.
        type_name: &'static str,
        /// What does not fit.
        reason: String,
    },
    /// The payload is no such value.
    #[error("the payload is no {type_name}: {reason}")]
    Decode {
        /// The type that was asked for.
        type_name: &'static str,
        /// What does not fit.
        reason: String,
    },
    /// There is no payload, since none was asked for.
    #[error("there is no payload to make a {type_name} of: the request was made without payloads")]
    Absent {
        /// The type that was asked for.
        type_name: &'static str,
    },
}

/// The payload that a struct or map describes.
///
/// # Errors
/// When the value is no map, or holds what a payload cannot.
pub fn payload_of<T: Serialize + ?Sized>(value: &T) -> Result<Payload, PayloadError> {
    let refused = |reason: String| PayloadError::Encode { type_name: std::any::type_name::<T>(), reason };
    let mut bytes = Vec::new();
    let mut serializer = rmp_serde::Serializer::new(&mut bytes).with_struct_map().with_human_readable();
    value.serialize(&mut serializer).map_err(|error| refused(error.to_string()))?;
    rmp_serde::from_slice(&bytes).map_err(|error| refused(error.to_string()))
}

/// The struct or map that a payload describes.
///
/// # Errors
/// When a field is missing or of another type.
pub fn payload_as<T: DeserializeOwned>(payload: &Payload) -> Result<T, PayloadError> {
    let refused = |reason: String| PayloadError::Decode { type_name: std::any::type_name::<T>(), reason };
    let bytes = rmp_serde::to_vec_named(payload).map_err(|error| refused(error.to_string()))?;
    let mut deserializer = rmp_serde::Deserializer::new(&bytes[..]).with_human_readable();
    T::deserialize(&mut deserializer).map_err(|error| refused(error.to_string()))
}

impl StoredPoint {
    /// Its payload as a struct of the application.
    ///
    /// # Errors
    /// When a field is missing or of another type.
    pub fn payload_as<T: DeserializeOwned>(&self) -> Result<T, PayloadError> {
        payload_as(&self.payload)
    }
}

impl Hit {
    /// Its payload as a struct of the application.
    ///
    /// # Errors
    /// When the search did not ask for payloads, or a field is missing or of another type.
    pub fn payload_as<T: DeserializeOwned>(&self) -> Result<T, PayloadError> {
        let absent = PayloadError::Absent { type_name: std::any::type_name::<T>() };
        payload_as(self.payload.as_ref().ok_or(absent)?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    use serde::Deserialize;

    use super::*;
    use crate::payload::Value;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Film {
        title: String,
        year: u16,
        rating: Option<f32>,
        tags: Vec<String>,
        colour: Colour,
        server: Ipv4Addr,
        more: BTreeMap<String, i64>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Colour {
        BlackAndWhite,
    }

    fn film() -> Film {
        Film {
            title: "Río".into(),
            year: 1991,
            rating: Some(0.1),
            tags: vec!["a".into()],
            colour: Colour::BlackAndWhite,
            server: Ipv4Addr::LOCALHOST,
            more: [("k".to_owned(), -1)].into(),
        }
    }

    #[test]
    fn a_struct_survives_being_a_payload() {
        let payload = payload_of(&film()).unwrap();
        assert_eq!(payload["year"], Value::Int(1991));
        assert_eq!(payload["colour"], Value::Text("black_and_white".into()));
        assert_eq!(payload["server"], Value::Text("127.0.0.1".into()), "as people read it");
        assert_eq!(payload_as::<Film>(&payload).unwrap(), film());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let error = payload_of(&[1, 2]).unwrap_err().to_string();
        assert!(error.contains("[i32; 2]") && error.contains("struct or a map"), "{error}");
        let mut payload = payload_of(&film()).unwrap();
        payload.remove("title");
        let error = payload_as::<Film>(&payload).unwrap_err().to_string();
        assert!(error.contains("Film") && error.contains("title"), "{error}");
    }
}
