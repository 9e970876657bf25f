//! The mesh: its id, its members as gossip knows them, and the ranges of its ring.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::NodeId;

/// Generations of the gossip loop inside one generation of the node: the lower bits of chitchat's generation.
pub const LOOP_GENERATION_BITS: u32 = 8;

/// Id of a mesh: 16 random bytes made by the node that started it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MeshId(#[serde(with = "serde_bytes")] pub [u8; 16]);

impl fmt::Display for MeshId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for MeshId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeshId({self})")
    }
}

/// Whether a node takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Gossips and has its tokens.
    Up,
    /// Known but silent.
    Down,
}

/// One range of the ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeInfo {
    /// First position after the previous token.
    pub start: u64,
    /// Last position, the token itself.
    pub end: u64,
    /// Its replicas, first one first.
    pub replicas: Vec<NodeId>,
}

/// A node as gossip knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Where peers reach it.
    pub address: SocketAddr,
    /// Whether it takes part.
    pub state: NodeState,
    /// Its places on the ring; not empty.
    pub tokens: Vec<u64>,
    /// Rises each time the node starts.
    pub generation: u64,
    /// Name in its certificate, for people; several nodes may have one name. Empty where the node does not tell it.
    pub name: String,
    /// Version of its software.
    pub software: String,
    /// Live points that it holds.
    pub points: u64,
    /// Bytes that it holds.
    pub bytes: u64,
    /// Digest of its catalog; empty until it has published one.
    pub catalog_digest: String,
}

/// Every node that is known to have taken part, this one among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// By id. The node itself is always up.
    pub members: BTreeMap<NodeId, Member>,
}

/// One entry of chitchat's state. A node that was restarted has several.
#[derive(Clone, Debug)]
pub struct Observation {
    /// chitchat's generation: the node's own, shifted by [`LOOP_GENERATION_BITS`], and that of its gossip loop.
    pub generation: u64,
    /// Rises while the node lives.
    pub heartbeat: u64,
    /// What it says of itself, once its tokens have arrived; its `state` means nothing.
    pub member: Option<Member>,
}
