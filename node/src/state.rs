//! What a node must remember of itself over restarts: its mesh, its tokens, its generation, where its peers were.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use vecino_model::{MeshId, NodeId};
use vecino_storage::{Disk, FileError, read_verified, write_atomically};

/// Where it stands in the data directory.
pub const FILE: &str = "node";

/// The contents of the file `node` in the data directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeState {
    /// Whose data this is.
    pub node_id: NodeId,
    /// The mesh that it joined; it never joins another.
    pub mesh_id: Option<MeshId>,
    /// Its places on the ring.
    pub tokens: Vec<u64>,
    /// How often the node was started on this disk: part of what makes its stamps unlike those of its earlier lives.
    #[serde(default)]
    pub starts: u32,
    /// Rises each time the node starts: gossip tells an old life from a new one by it.
    pub generation: u64,
    /// Addresses of the other members, so that a restarted mesh finds itself without its seeds.
    pub peers: BTreeMap<NodeId, String>,
}

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Reading or writing it.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its contents.
    #[error("the node's state cannot be read: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    /// The certificate is another node's.
    #[error(
        "this data directory belongs to node {owner}, and the certificate is that of node {certificate}: \
         start with the certificate that the data were written with, or with an empty directory"
    )]
    OtherNode {
        /// Whose data they are.
        owner: NodeId,
        /// Whose certificate it is.
        certificate: NodeId,
    },
}

impl NodeState {
    /// Reads the state and begins a new generation, durably.
    pub fn begin(disk: &dyn Disk, node_id: NodeId) -> Result<Self, StateError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        let mut state = match read_verified(disk, FILE)? {
            Some(bytes) => rmp_serde::from_slice(&bytes)?,
            None => {
                Self { node_id, mesh_id: None, tokens: Vec::new(), starts: 0, generation: 0, peers: BTreeMap::new() }
            }
        };
        if state.node_id != node_id {
            return Err(StateError::OtherNode { owner: state.node_id, certificate: node_id });
        }
        state.generation = now.max(state.generation + 1);
        state.starts += 1;
        state.save(disk)?;
        Ok(state)
    }

    /// Writes it, in full or not at all.
    pub fn save(&self, disk: &dyn Disk) -> Result<(), StateError> {
        let bytes = rmp_serde::to_vec_named(self).expect("numbers, strings and bytes always encode");
        Ok(write_atomically(disk, FILE, &bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use vecino_storage::MemDisk;

    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 16])
    }

    #[test]
    fn generations_rise_over_restarts_whatever_the_clock_says() {
        let disk = MemDisk::new();
        let mut first = NodeState::begin(&disk, node(1)).unwrap();
        first.generation = u64::MAX / 2;
        first.mesh_id = Some(MeshId([5; 16]));
        first.save(&disk).unwrap();
        let second = NodeState::begin(&disk, node(1)).unwrap();
        assert_eq!((second.generation, second.starts), (u64::MAX / 2 + 1, 2));
        assert_eq!(second.mesh_id, first.mesh_id);
    }

    #[test]
    fn the_data_of_another_node_are_refused() {
        let disk = MemDisk::new();
        NodeState::begin(&disk, node(1)).unwrap();
        assert!(matches!(NodeState::begin(&disk, node(2)), Err(StateError::OtherNode { .. })));
    }
}
