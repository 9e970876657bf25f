//! A payload as it travels and is stored.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::value::Payload;
use super::walk::{self, PayloadFault};

/// A payload as MessagePack bytes: a map with text keys. Travels as one MessagePack `bin`.
///
/// The bytes are those that the client sent, or were made from a [`Payload`]. A value of this type that came from outside is
/// [checked](Self::check) before it is relied on.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RawPayload(Box<[u8]>);

/// A payload that cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodePayloadError {
    /// It is not what a payload may be.
    #[error(transparent)]
    Fault(#[from] PayloadFault),
    /// It is not what [`Payload`] can hold.
    #[error("payload cannot be decoded: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
}

/// A map without entries as MessagePack.
const EMPTY: [u8; 1] = [0x80];

impl RawPayload {
    /// The payload with these bytes, which are not looked at.
    pub fn from_bytes(bytes: impl Into<Box<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// Encodes a payload.
    pub fn from_map(payload: &Payload) -> Self {
        if payload.is_empty() {
            return Self::default();
        }
        let bytes = rmp_serde::to_vec_named(payload).expect("a payload of values always encodes into memory");
        Self(bytes.into_boxed_slice())
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its bytes.
    pub fn into_bytes(self) -> Box<[u8]> {
        self.0
    }

    /// Checks that it is what a payload may be, in one pass that makes no values of it.
    ///
    /// # Errors
    /// Where it is too large, nested too deeply, or anything but one map with text keys, each once, of null, booleans,
    /// finite numbers, text, lists and maps.
    pub fn check(&self) -> Result<(), PayloadFault> {
        walk::check(&self.0)
    }

    /// Checks and decodes it.
    ///
    /// # Errors
    /// Those of [`Self::check`].
    pub fn decode(&self) -> Result<Payload, DecodePayloadError> {
        if *self.0 == EMPTY {
            return Ok(Payload::new());
        }
        self.check()?;
        Ok(rmp_serde::from_slice(&self.0)?)
    }
}

/// A payload without entries.
impl Default for RawPayload {
    fn default() -> Self {
        Self(Box::new(EMPTY))
    }
}

impl From<&Payload> for RawPayload {
    fn from(payload: &Payload) -> Self {
        Self::from_map(payload)
    }
}

impl From<Payload> for RawPayload {
    fn from(payload: Payload) -> Self {
        Self::from_map(&payload)
    }
}

impl fmt::Debug for RawPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.decode() {
            Ok(payload) => payload.fmt(f),
            Err(error) => write!(f, "RawPayload({} bytes, {error})", self.0.len()),
        }
    }
}

impl Serialize for RawPayload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for RawPayload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = RawPayload;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the MessagePack bytes of a payload in a bin")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<RawPayload, E> {
                Ok(RawPayload(bytes.into()))
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<RawPayload, E> {
                Ok(RawPayload(bytes.into()))
            }
        }
        deserializer.deserialize_byte_buf(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;

    #[test]
    fn a_payload_travels_as_one_bin_of_its_map() {
        let payload = Payload::from([("a".to_owned(), Value::Int(1))]);
        let raw = RawPayload::from_map(&payload);
        assert_eq!(raw.as_bytes(), [0x81, 0xa1, b'a', 1]);
        let bytes = rmp_serde::to_vec_named(&raw).unwrap();
        assert_eq!(bytes, [&[0xc4, 4][..], raw.as_bytes()].concat());
        assert_eq!(rmp_serde::from_slice::<RawPayload>(&bytes).unwrap(), raw);
        assert_eq!(raw.decode().unwrap(), payload);
        assert_eq!(RawPayload::from_map(&Payload::new()), RawPayload::default());
        assert_eq!(RawPayload::default().decode().unwrap(), Payload::new());
        assert!(rmp_serde::from_slice::<RawPayload>(raw.as_bytes()).is_err(), "a map is no bin");
    }
}
