//! The requests that nodes and clients send, and their replies: one struct each, tied to its [`kind`](Rpc::KIND).
//!
//! Frames, deadlines and dispatch live in [`crate::frame`] and [`crate::rpc`]; the data inside live in
//! [`vecino_model`]. A kind's number is part of the protocol and never reused. Kinds below 100 may be asked by anyone
//! with a certificate; kinds from 100 on only by nodes.

mod admin;
mod client;
mod hello;
mod peer;

use serde::Serialize;
use serde::de::DeserializeOwned;
use vecino_model::{CatalogEntry, Outcome, RawHit, RawStoredPoint, Record, Version};

pub use admin::*;
pub use client::*;
pub use hello::*;
pub use peer::*;

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
    Get = 7 -> Vec<Option<RawStoredPoint>>;
    Delete = 8 -> Vec<Outcome>;
    Search = 9 -> RawSearchReply;
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
    ReplicaSearch = 106 -> Vec<RawHit>;
    ReplicaScan = 107 -> ReplicaScanReply;
    NodeSnapshot = 108 -> Vec<SnapshotReport>;
    NodeStats = 109 -> NodeStatsReply;
}

#[cfg(test)]
mod tests {
    use vecino_model::{Level, PointId};

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
