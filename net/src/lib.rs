//! QUIC endpoint, RPC, wire model, gossip and ring.

mod connection;
pub mod endpoint;
pub mod error;
pub mod frame;
pub mod gossip;
pub mod hlc;
mod keys;
pub mod limits;
pub mod membership;
pub mod message;
pub mod model;
mod options;
mod pool;
pub mod ring;
mod roster;
pub mod rpc;
mod serve;
mod stream;
pub mod tokens;
