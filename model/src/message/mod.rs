//! The requests that nodes and clients send, and their replies, as plain types. How they travel (kinds, frames, encoding)
//! is for `vecino-net` to know; what is done about them, for `vecino-mesh`.

mod admin;
mod client;
mod peer;

pub use admin::*;
pub use client::*;
pub use peer::*;
