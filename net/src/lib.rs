//! QUIC endpoint, RPC, wire model, gossip and ring.

pub mod error;
pub mod limits;
pub mod message;
pub mod model;
