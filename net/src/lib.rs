//! QUIC endpoint, RPC, wire messages, gossip over QUIC, and the driver of membership.

pub mod admission;
mod answer;
mod chunks;
mod connection;
mod dialler;
pub mod endpoint;
mod facts;
pub mod frame;
pub mod gossip;
mod greeting;
mod keys;
mod log_limit;
pub mod membership;
pub mod message;
mod node_id;
mod options;
mod pool;
mod quic;
mod refusal;
pub mod rpc;
mod serve;
mod socket;
mod stream;
#[cfg(feature = "testing")]
pub mod testing;
mod trace;

pub use node_id::node_id;

/// What a request can fail with: types of `vecino-model`, which travel as they are.
pub mod error {
    pub use vecino_model::error::{ErrorCode, Retry, RpcError};
}
