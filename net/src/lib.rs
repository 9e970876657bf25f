//! QUIC endpoint, RPC, wire model, gossip and ring.

pub mod error;
pub mod hlc;
pub mod limits;
pub mod message;
pub mod model;
pub mod ring;
pub mod tokens;
