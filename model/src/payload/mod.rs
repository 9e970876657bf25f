//! What a point carries beside its vectors: values like those of JSON, and how they travel.
//!
//! A payload travels and is stored as the MessagePack bytes of a [`RawPayload`]. They are checked where they come in
//! ([`RawPayload::check`]) and decoded only by code that looks into them.

mod raw;
mod value;
mod walk;

pub use raw::{DecodePayloadError, RawPayload};
pub use value::{Payload, Value};
pub use walk::PayloadFault;
