//! QUIC endpoint, RPC, wire messages, gossip over QUIC, and the driver of membership.

mod connection;
pub mod endpoint;
pub mod error;
pub mod frame;
pub mod gossip;
mod keys;
pub mod membership;
pub mod message;
mod options;
mod pool;
pub mod rpc;
mod serve;
mod stream;
#[cfg(feature = "testing")]
pub mod testing;

/// The node id that a key stands for.
pub fn node_id(key: vecino_certs::KeyId) -> vecino_model::NodeId {
    vecino_model::NodeId::from_bytes(key.to_bytes())
}
