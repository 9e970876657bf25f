//! The first request on every connection.

use serde::{Deserialize, Serialize};
use vecino_model::{MeshId, NodeId};

/// First request on every connection: the caller says what it is.
///
/// A peer claims its node id here; the receiver compares it with the hash of the key that TLS proved.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Set by nodes, absent for clients.
    pub peer: Option<PeerIdentity>,
    /// Version of the sender's software, for logs.
    pub software: String,
    /// What the connection is for.
    #[serde(default)]
    pub class: ConnectionClass,
}

/// What a connection is for. Two connections to a node keep what is small and urgent from waiting behind what is large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ConnectionClass {
    /// Gossip, and requests with one answer.
    #[default]
    Ordinary,
    /// Scans, and whatever else moves much data.
    Bulk,
}

/// Who a node says that it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerIdentity {
    /// Must be the hash of the key in the node's certificate.
    pub node_id: NodeId,
    /// The mesh it belongs to; absent while it looks for one.
    pub mesh_id: Option<MeshId>,
    /// The address at which peers reach it, `host:port`.
    pub advertise: String,
}

/// Answer to [`Hello`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HelloReply {
    /// The answering node.
    pub identity: PeerIdentity,
    /// Version of its software.
    pub software: String,
}
