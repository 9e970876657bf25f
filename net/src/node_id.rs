//! Nodes are their keys.

/// The node id that a key stands for.
pub fn node_id(key: vecino_certs::KeyId) -> vecino_model::NodeId {
    vecino_model::NodeId::from_bytes(key.to_bytes())
}
