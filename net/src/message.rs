//! The requests that nodes and clients send, and their replies: one struct each, tied to its [`kind`](Rpc::KIND).
//!
//! Frames, deadlines and dispatch live in [`crate::frame`] and [`crate::rpc`]; the data inside live in
//! [`vecino_model`]. A kind's number is part of the protocol and never reused. Kinds below 100 may be asked by anyone
//! with a certificate; kinds from 100 on only by nodes.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vecino_model::{
    CatalogEntry, CollectionId, CollectionSchema, CollectionStats, Hit, Level, MemoryUse, MeshId, Metric, NodeId,
    NodeState, Outcome, Placement, Point, PointId, RangeInfo, Record, ScanCursor, StoredPoint, Vector, Version,
};

/// A request with its number and its reply.
pub trait Rpc: Serialize + DeserializeOwned + Send + 'static {
    /// Number of this request in the frame header.
    const KIND: u16;
    /// Name in logs and errors.
    const NAME: &'static str;
    /// What answers it.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
}

macro_rules! rpc {
    ($($request:ident = $kind:literal -> $reply:ty;)*) => {
        $(impl Rpc for $request {
            const KIND: u16 = $kind;
            const NAME: &'static str = stringify!($request);
            type Reply = $reply;
        })*
        /// Every kind with its name, in order.
        pub const KINDS: &[(u16, &str)] = &[$(($kind, stringify!($request))),*];
    };
}

rpc! {
    Hello = 1 -> HelloReply;
    CreateCollection = 2 -> CollectionInfo;
    DropCollection = 3 -> Dropped;
    ListCollections = 4 -> Vec<CollectionInfo>;
    DescribeCollection = 5 -> CollectionInfo;
    Put = 6 -> Vec<Outcome>;
    Get = 7 -> Vec<Option<StoredPoint>>;
    Delete = 8 -> Vec<Outcome>;
    Search = 9 -> SearchReply;
    Scan = 10 -> ScanReply;
    Status = 11 -> StatusReply;
    RingInfo = 12 -> RingReply;
    TakeSnapshot = 13 -> Vec<SnapshotReport>;
    Join = 100 -> JoinReply;
    CatalogFetch = 101 -> Vec<CatalogEntry>;
    CatalogApply = 102 -> Dropped;
    ReplicaVersions = 103 -> Vec<Option<Version>>;
    ReplicaApply = 104 -> Vec<Outcome>;
    ReplicaRead = 105 -> Vec<Option<Record>>;
    ReplicaSearch = 106 -> Vec<Hit>;
    ReplicaScan = 107 -> ReplicaScanReply;
    NodeSnapshot = 108 -> Vec<SnapshotReport>;
    NodeStats = 109 -> NodeStatsReply;
}

/// Answer to what may have dropped a collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Bytes of files that were removed; 0 where nothing was dropped.
    #[serde(default)]
    pub freed_bytes: u64,
}

// ------------------------------------------------------------------------------------------------- asked by anyone

/// First request on every connection: who is there.
///
/// A peer claims its node id here; the receiver compares it with the hash of the key that TLS proved.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Set by nodes, absent for clients.
    pub peer: Option<PeerIdentity>,
    /// Version of the sender's software, for logs.
    pub software: String,
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

/// Creates a collection on every node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreateCollection {
    /// Its name, 1 to [`vecino_model::limits::NAME_BYTES_MAX`] bytes of letters, digits, `-`, `_` and `.`.
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

/// Writes points, up to [`vecino_model::limits::BATCH_POINTS_MAX`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Put {
    /// Collection name.
    pub collection: String,
    /// The points.
    pub points: Vec<Point>,
    /// Durable replicas to wait for.
    #[serde(default)]
    pub level: Level,
}

/// Reads points by id.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Get {
    /// Collection name.
    pub collection: String,
    /// The ids; the reply has one entry for each, in this order.
    pub ids: Vec<PointId>,
    /// Replicas to wait for.
    #[serde(default)]
    pub level: Level,
    /// Whether vectors are wanted.
    pub with_vectors: bool,
}

/// Deletes points by id. Deleting what is absent succeeds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Delete {
    /// Collection name.
    pub collection: String,
    /// The ids.
    pub ids: Vec<PointId>,
    /// Durable replicas to wait for.
    #[serde(default)]
    pub level: Level,
}

/// What is searched for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Query {
    /// Points near this vector.
    Vector(Vector),
    /// Points near the stored point of this id, itself left out.
    Id(PointId),
}

/// Finds the `k` best points.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Search {
    /// Collection name.
    pub collection: String,
    /// What is searched for.
    pub query: Query,
    /// Vector field; `""` is the default one.
    #[serde(default)]
    pub field: String,
    /// Hits wanted, 1 to [`vecino_model::limits::K_MAX`].
    pub k: u32,
    /// Candidates that the graph walk keeps; absent means the default.
    #[serde(default)]
    pub ef: Option<u32>,
    /// Only hits at least this good: a least similarity for cosine and dot, a greatest distance for the others.
    #[serde(default)]
    pub threshold: Option<f32>,
    /// Replicas of every range to ask.
    #[serde(default)]
    pub level: Level,
    /// Whether payloads are wanted.
    pub with_payload: bool,
    /// Whether vectors are wanted.
    #[serde(default)]
    pub with_vectors: bool,
    /// Answer with what the live nodes have when a range has no live replica.
    #[serde(default)]
    pub allow_partial: bool,
    /// Search exactly, without the graph.
    #[serde(default)]
    pub exact: bool,
}

/// Answer to [`Search`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchReply {
    /// Best first.
    pub hits: Vec<Hit>,
    /// Share of the ring that was searched, 1.0 unless a partial answer was allowed.
    pub coverage: f64,
    /// The metric that scored them.
    pub metric: Metric,
}

/// Reads a collection page by page, in ring order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scan {
    /// Collection name.
    pub collection: String,
    /// Where the last page ended; absent for the first.
    pub after: Option<ScanCursor>,
    /// Most points in the page.
    pub limit: u32,
    /// Replicas of every range to ask.
    #[serde(default)]
    pub level: Level,
    /// Whether vectors are wanted.
    #[serde(default = "wanted")]
    pub with_vectors: bool,
    /// Whether payloads are wanted.
    #[serde(default = "wanted")]
    pub with_payload: bool,
}

/// What is wanted where a request does not say that it is not.
fn wanted() -> bool {
    true
}

/// A page of points.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ScanReply {
    /// The points, in ring order.
    pub points: Vec<StoredPoint>,
    /// Where to go on; absent after the last page.
    pub next: Option<ScanCursor>,
}

/// Asks for the state of the whole mesh as this node sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {}

/// Answer to [`Status`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusReply {
    /// The mesh.
    pub mesh: MeshId,
    /// The node that answered.
    pub answered_by: NodeId,
    /// Every known node, itself among them, by address.
    pub nodes: Vec<NodeStatus>,
}

/// One node in [`StatusReply`].
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    /// Its software version, as it last said.
    pub software: String,
    /// Its memory, where it answered in time.
    #[serde(default)]
    pub memory: Option<MemoryUse>,
    /// Panics in its process since it was started, where it answered in time; its log says where.
    #[serde(default)]
    pub panics: Option<u64>,
    /// Its collections, from the answering node and from peers that answered in time.
    #[serde(default)]
    pub collections: BTreeMap<String, CollectionStats>,
}

/// Asks for the tokens, of the mesh or of one collection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RingInfo {
    /// Show the ring of this collection; absent means the ring of all nodes.
    pub collection: Option<String>,
}

/// Answer to [`RingInfo`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RingReply {
    /// Ranges in token order; each ends at its token and begins after the one before.
    pub ranges: Vec<RangeInfo>,
    /// Share of the ring that each node owns as first replica.
    pub owns: BTreeMap<NodeId, f64>,
    /// Number of replicas shown for each range.
    pub replication_factor: u32,
}

/// Takes a snapshot of a collection, or of all, on every live node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TakeSnapshot {
    /// Collection name; absent means all.
    pub collection: Option<String>,
}

/// What a snapshot did on one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

// ------------------------------------------------------------------------------------------------- asked by nodes

/// Asks a member of the mesh for tokens. The one who is asked remembers what it gave, so that two nodes that join at
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

/// Reads whole records, tombstones included.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReplicaRead {
    /// Collection.
    pub collection: CollectionId,
    /// The ids; the reply has one entry for each.
    pub ids: Vec<PointId>,
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

/// Reads one node's records in ring order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReplicaScan {
    /// Collection.
    pub collection: CollectionId,
    /// Where the last page ended.
    pub after: Option<ScanCursor>,
    /// Most records in the page.
    pub limit: u32,
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_distinct_and_ordered() {
        assert!(KINDS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn an_unknown_optional_field_is_ignored_and_a_missing_one_defaults() {
        #[derive(Serialize)]
        struct NewerDelete {
            collection: &'static str,
            ids: Vec<u64>,
            surprise: bool,
        }
        let bytes = rmp_serde::to_vec_named(&NewerDelete { collection: "c", ids: vec![1], surprise: true }).unwrap();
        let delete: Delete = rmp_serde::from_slice(&bytes).unwrap();
        assert_eq!(delete.ids, [PointId::Number(1)]);
        assert_eq!(delete.level, Level::Quorum);
    }
}
