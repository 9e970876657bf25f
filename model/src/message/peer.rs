//! What nodes ask each other.

use std::collections::BTreeMap;

use crate::{
    CatalogEntry, ClockStatus, CollectionId, CollectionStats, MemoryUse, MeshId, NodeId, Parts, PointId, RawHit,
    Record, ScanCursor, Vector,
};
use serde::{Deserialize, Serialize};

/// Asks a member of the mesh for tokens. The member that is asked remembers what it gave, so that two nodes that join at
/// once through it share the ring evenly.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Join {
    /// Tokens that the node already has from an earlier life; it keeps them.
    pub tokens: Vec<u64>,
}

/// Answer to [`Join`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JoinReply {
    /// The mesh.
    pub mesh_id: MeshId,
    /// The joining node's tokens.
    pub tokens: Vec<u64>,
    /// Addresses of the members, to gossip with.
    pub members: BTreeMap<NodeId, String>,
    /// The collections.
    pub catalog: Vec<CatalogEntry>,
}

/// Fetches the catalog.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CatalogFetch {}

/// Adds an entry to the catalog, durably. Refused when the name is in use by another live collection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CatalogApply {
    /// The entry.
    pub entry: CatalogEntry,
}

/// Asks for the versions of points, tombstones included.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReplicaVersions {
    /// Collection.
    pub collection: CollectionId,
    /// The ids; the reply has one entry for each.
    pub ids: Vec<PointId>,
}

/// Applies records, each if it is newer than what is there, and answers once they are durable.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReplicaApply {
    /// Collection.
    pub collection: CollectionId,
    /// The records.
    pub records: Vec<Record>,
}

/// Reads records, tombstones included.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReplicaRead {
    /// Collection.
    pub collection: CollectionId,
    /// The ids; the reply has one entry for each.
    pub ids: Vec<PointId>,
    /// Which parts of the records are wanted; a record that lacks one is not to be written anywhere.
    #[serde(default)]
    pub parts: Parts,
}

/// Searches one node's index.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReplicaSearch {
    /// Collection.
    pub collection: CollectionId,
    /// Vector field.
    pub field: String,
    /// Query vector.
    pub vector: Vector,
    /// Hits wanted.
    pub k: u32,
    /// Candidates that the graph walk keeps.
    pub ef: u32,
    /// Only hits at least this good.
    pub threshold: Option<f32>,
    /// Whether payloads are wanted.
    pub with_payload: bool,
    /// Whether vectors are wanted.
    pub with_vectors: bool,
    /// Search exactly, without the graph.
    pub exact: bool,
}

/// What one node's index has for a [`ReplicaSearch`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplicaHits {
    /// Best first.
    pub hits: Vec<RawHit>,
    /// What was left out, since there was no more room, is no better than this score. Absent where nothing was left out.
    pub horizon: Option<f32>,
}

/// Reads one node's records in ring order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReplicaScan {
    /// Collection.
    pub collection: CollectionId,
    /// Where the last page ended.
    pub after: Option<ScanCursor>,
    /// Most records in the page.
    pub limit: u32,
    /// Which parts of the records are wanted.
    #[serde(default)]
    pub parts: Parts,
}

/// A page of one node's records, tombstones included.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReplicaScanReply {
    /// In ring order.
    pub records: Vec<Record>,
    /// Whether the node has nothing after them.
    pub end: bool,
}

/// Takes snapshots on the node that is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeSnapshot {
    /// Collection name; absent means all.
    pub collection: Option<String>,
}

/// Asks a node what it holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeStats {}

/// Answer to [`NodeStats`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeStatsReply {
    /// By collection name.
    pub collections: BTreeMap<String, CollectionStats>,
    /// What it takes in all.
    #[serde(default)]
    pub memory: Option<MemoryUse>,
    /// Panics in its process since it was started.
    #[serde(default)]
    pub panics: u64,
    /// Its clock as it sees it.
    #[serde(default)]
    pub clock: Option<ClockStatus>,
}

/// Asks whether a node answers at all.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Probe {}

/// Answer to [`Probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReply {}
