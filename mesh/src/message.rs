//! Every request that a node decides about, and every reply, as one type each.

use std::sync::Arc;

use vecino_model::message::{
    CatalogApply, CatalogFetch, CollectionInfo, CreateCollection, Delete, DescribeCollection, DropCollection, Dropped,
    Get, Join, JoinReply, ListCollections, Members, MembersReply, NodeSnapshot, NodeStats, NodeStatsReply, Probe,
    ProbeReply, Put, RawSearchReply, ReplicaApply, ReplicaHits, ReplicaRead, ReplicaScan, ReplicaScanReply,
    ReplicaSearch, ReplicaVersions, RingInfo, RingReply, Scan, ScanReply, Search, SnapshotReport, Stamp, Stamped,
    Status, StatusReply, TakeSnapshot,
};
use vecino_model::{CatalogEntry, CollectionId, NodeId, Outcome, RawStoredPoint, Record, Version};

use crate::collections::Route;

/// Asks a node where the points of a collection go. It does not travel.
#[derive(Clone, Debug)]
pub struct Find {
    /// Collection name.
    pub collection: String,
}

/// Has this node's disk keep what another node has missed. It does not travel, and neither do the next two.
#[derive(Clone, Debug)]
pub struct KeepHints {
    /// Which node missed it.
    pub node: NodeId,
    /// Of which collection.
    pub collection: CollectionId,
    /// What it missed.
    pub records: Vec<Record>,
}

/// Asks this node's disk for the oldest of what another node has missed.
#[derive(Clone, Debug)]
pub struct NextHints {
    /// Which node.
    pub node: NodeId,
}

/// Tells this node's disk what another node has by now.
#[derive(Clone, Debug)]
pub struct TakenHints {
    /// Which node.
    pub node: NodeId,
    /// The last of what it has: [`HintBatch::last_lsn`].
    pub last_lsn: u64,
}

/// What answers them.
#[derive(Clone, Debug)]
pub struct WaitingHints {
    /// Numbers the answers of the disk in the order in which it did what was asked: they may come in another.
    pub number: u64,
    /// Number of records that wait for that node.
    pub waiting: u64,
    /// The oldest of them, where they were asked for.
    pub batch: Option<HintBatch>,
}

/// Records of one collection that a node missed, the oldest first.
#[derive(Clone, Debug)]
pub struct HintBatch {
    /// The collection.
    pub collection: CollectionId,
    /// The records.
    pub records: Vec<Record>,
    /// The number of the last of them on the disk.
    pub last_lsn: u64,
}

/// A request of one kind, and what answers it.
pub trait Ask: Into<Request> {
    /// What answers it.
    type Answer;

    /// The answer out of a reply; nothing where the reply is to a request of another kind.
    fn answer(reply: Reply) -> Option<Self::Answer>;
}

macro_rules! messages {
    ($($request:ident -> $reply:ident($answer:ty);)*) => {
        /// What a node is asked, by clients or by other nodes.
        #[derive(Clone, Debug)]
        pub enum Request {
            $(#[doc = concat!("See [`", stringify!($request), "`].")] $request($request),)*
        }

        impl Request {
            /// Its name in logs and errors.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$request(_) => stringify!($request),)*
                }
            }
        }

        $(impl From<$request> for Request {
            fn from(request: $request) -> Self {
                Self::$request(request)
            }
        }

        impl Ask for $request {
            type Answer = $answer;

            fn answer(reply: Reply) -> Option<$answer> {
                if let Reply::$reply(answer) = reply { Some(answer) } else { None }
            }
        })*
    };
}

messages! {
    Put -> Outcomes(Vec<Outcome>);
    Delete -> Outcomes(Vec<Outcome>);
    Stamp -> Stamps(Vec<Stamped>);
    Get -> Points(Vec<Option<RawStoredPoint>>);
    Search -> Found(RawSearchReply);
    Scan -> Page(ScanReply);
    CreateCollection -> Collection(CollectionInfo);
    DropCollection -> Dropped(Dropped);
    ListCollections -> Collections(Vec<CollectionInfo>);
    DescribeCollection -> Collection(CollectionInfo);
    Status -> Status(StatusReply);
    RingInfo -> Ring(RingReply);
    TakeSnapshot -> Snapshots(Vec<SnapshotReport>);
    Join -> Joined(JoinReply);
    CatalogFetch -> Catalog(Vec<CatalogEntry>);
    CatalogApply -> Dropped(Dropped);
    Members -> Members(MembersReply);
    Probe -> Probed(ProbeReply);
    Find -> Route(Arc<Route>);
    NodeStats -> Stats(NodeStatsReply);
    NodeSnapshot -> Snapshots(Vec<SnapshotReport>);
    ReplicaVersions -> Versions(Vec<Option<Version>>);
    ReplicaApply -> Outcomes(Vec<Outcome>);
    ReplicaRead -> Records(Vec<Option<Record>>);
    ReplicaSearch -> Hits(ReplicaHits);
    ReplicaScan -> RecordPage(ReplicaScanReply);
    KeepHints -> Hints(WaitingHints);
    NextHints -> Hints(WaitingHints);
    TakenHints -> Hints(WaitingHints);
}

/// What answers a [`Request`].
#[derive(Clone, Debug)]
pub enum Reply {
    /// What became of each point of a put, a delete, or of what a replica was to apply.
    Outcomes(Vec<Outcome>),
    /// What each point is to be written with.
    Stamps(Vec<Stamped>),
    /// What was read of each point.
    Points(Vec<Option<RawStoredPoint>>),
    /// What a search found.
    Found(RawSearchReply),
    /// A page of a scan.
    Page(ScanReply),
    /// The collection that was created, or asked about.
    Collection(CollectionInfo),
    /// Every collection.
    Collections(Vec<CollectionInfo>),
    /// The nodes of the mesh.
    Status(StatusReply),
    /// The ranges of a ring.
    Ring(RingReply),
    /// What came of snapshots.
    Snapshots(Vec<SnapshotReport>),
    /// What a node holds.
    Stats(NodeStatsReply),
    /// What was dropped.
    Dropped(Dropped),
    /// What a node has once it belongs to the mesh.
    Joined(JoinReply),
    /// A catalog.
    Catalog(Vec<CatalogEntry>),
    /// Where the points of a collection go.
    Route(Arc<Route>),
    /// Where the members are reached.
    Members(MembersReply),
    /// It answers.
    Probed(ProbeReply),
    /// The versions that a replica has.
    Versions(Vec<Option<Version>>),
    /// The records that a replica has.
    Records(Vec<Option<Record>>),
    /// What a replica's index found.
    Hits(ReplicaHits),
    /// A page of a replica's records.
    RecordPage(ReplicaScanReply),
    /// What waits for another node.
    Hints(WaitingHints),
}
