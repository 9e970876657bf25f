//! What people ask: collections, the state of the mesh, snapshots.

use std::collections::BTreeMap;

use crate::{
    ClockStatus, CollectionId, CollectionSchema, CollectionStats, MemoryUse, MeshId, NodeId, NodeState, Placement,
    RangeInfo,
};
use serde::{Deserialize, Serialize};

/// Creates a collection on every node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreateCollection {
    /// Its name, 1 to [`crate::limits::NAME_BYTES_MAX`] bytes of letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// Its schema. A `replication_factor` of 0 asks for the default: three, or fewer in a smaller mesh.
    pub schema: CollectionSchema,
}

/// Drops a collection and everything in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DropCollection {
    /// Its name.
    pub name: String,
}

/// Lists the collections of the mesh.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListCollections {}

/// Describes one collection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DescribeCollection {
    /// Its name.
    pub name: String,
}

/// What is known of a collection.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CollectionInfo {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: CollectionId,
    /// Its schema.
    pub schema: CollectionSchema,
    /// The nodes that keep its points, with their tokens, fixed when it was created.
    pub placement: Placement,
    /// Distinct live points, estimated from the nodes that answered: the sum of their points over the replication factor.
    pub points: u64,
    /// What each node that answered holds of it.
    pub nodes: BTreeMap<NodeId, CollectionStats>,
}

impl CollectionInfo {
    /// A collection of which no points are known.
    pub fn new(name: String, id: CollectionId, schema: CollectionSchema, placement: Placement) -> Self {
        Self { name, id, schema, placement, points: 0, nodes: BTreeMap::new() }
    }
}

/// Asks for the state of the whole mesh as this node sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {}

/// Answer to [`Status`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StatusReply {
    /// The mesh.
    pub mesh: MeshId,
    /// The node that answered.
    pub answered_by: NodeId,
    /// Every known node, itself among them, by address.
    pub nodes: Vec<NodeStatus>,
}

impl StatusReply {
    /// The answer of one node about these.
    pub fn new(mesh: MeshId, answered_by: NodeId, nodes: Vec<NodeStatus>) -> Self {
        Self { mesh, answered_by, nodes }
    }
}

/// One node in [`StatusReply`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeStatus {
    /// Its id.
    pub id: NodeId,
    /// Where peers reach it; empty when only a collection's placement remembers the node.
    pub address: String,
    /// Whether it takes part.
    pub state: NodeState,
    /// Live points over all collections, as it last said; absent when it was never heard.
    pub points: Option<u64>,
    /// Share of the ring that it owns as first replica, 0 to 1.
    pub owns: f64,
    /// Name in its certificate, as it last said; empty where it never said one.
    #[serde(default)]
    pub name: String,
    /// Its software version, as it last said.
    pub software: String,
    /// Its memory, where it answered in time.
    #[serde(default)]
    pub memory: Option<MemoryUse>,
    /// Panics in its process since it was started, where it answered in time; its log says where.
    #[serde(default)]
    pub panics: Option<u64>,
    /// Its clock as it sees it itself, where it answered in time.
    #[serde(default)]
    pub clock: Option<ClockStatus>,
    /// Its collections, from the answering node and from peers that answered in time.
    #[serde(default)]
    pub collections: BTreeMap<String, CollectionStats>,
}

impl NodeStatus {
    /// A node that was never heard.
    pub fn new(id: NodeId, address: String, state: NodeState) -> Self {
        Self {
            id,
            address,
            state,
            points: None,
            owns: 0.0,
            name: String::new(),
            software: String::new(),
            memory: None,
            panics: None,
            clock: None,
            collections: BTreeMap::new(),
        }
    }
}

/// Asks for the tokens, of the mesh or of one collection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RingInfo {
    /// Show the ring of this collection; absent means the ring of all nodes.
    pub collection: Option<String>,
}

/// Answer to [`RingInfo`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RingReply {
    /// Ranges in token order; each ends at its token and begins after the one before.
    pub ranges: Vec<RangeInfo>,
    /// Share of the ring that each node owns as first replica.
    pub owns: BTreeMap<NodeId, f64>,
    /// Number of replicas shown for each range.
    pub replication_factor: u32,
}

impl RingReply {
    /// The ranges of a ring, and the share of each node.
    pub fn new(ranges: Vec<RangeInfo>, owns: BTreeMap<NodeId, f64>, replication_factor: u32) -> Self {
        Self { ranges, owns, replication_factor }
    }
}

/// Takes a snapshot of a collection, or of all, on every live node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TakeSnapshot {
    /// Collection name; absent means all.
    pub collection: Option<String>,
}

/// What a snapshot did on one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SnapshotReport {
    /// Where.
    pub node: NodeId,
    /// Of which collection.
    pub collection: String,
    /// Every write before this log sequence number is in it.
    pub lsn: u64,
    /// Pages in it.
    pub pages: u64,
    /// Pages that had to be written.
    pub pages_written: u64,
    /// How long it took.
    pub milliseconds: u64,
    /// Why there is none, if it failed.
    pub error: Option<String>,
}

impl SnapshotReport {
    /// The report of a snapshot that took no time and has no pages yet.
    pub fn new(node: NodeId, collection: String) -> Self {
        Self { node, collection, lsn: 0, pages: 0, pages_written: 0, milliseconds: 0, error: None }
    }
}

/// Answer to what may have dropped a collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Dropped {
    /// Bytes of files that were removed; 0 where nothing was dropped.
    #[serde(default)]
    pub freed_bytes: u64,
}

impl Dropped {
    /// What was dropped took this many bytes of files.
    pub fn new(freed_bytes: u64) -> Self {
        Self { freed_bytes }
    }
}
