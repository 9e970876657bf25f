//! The requests that nodes and clients send, and their replies: one struct each, tied to its [`kind`](Rpc::KIND).
//!
//! Frames, deadlines and dispatch live in [`crate::frame`] and [`crate::rpc`]; the data inside live in
//! [`vecino_model`]. A kind's number is part of the protocol and never reused. Kinds below 100 may be asked by anyone
//! with a certificate; kinds from 100 on only by nodes.

mod hello;

use serde::Serialize;
use serde::de::DeserializeOwned;
use vecino_model::{CatalogEntry, Outcome, RawStoredPoint, Record, Version};

use crate::error::{ErrorCode, RpcError};
use crate::frame::StreamKind;

pub use hello::*;
pub use vecino_model::message::*;

/// A request with its number and its reply.
pub trait Rpc: Serialize + DeserializeOwned + Send + 'static {
    /// Number of this request in the frame header.
    const KIND: u16;
    /// Name in logs and errors.
    const NAME: &'static str;
    /// What comes back: one reply, or chunks.
    const STREAM: StreamKind = StreamKind::Reply;
    /// Which of the two connections to a node it takes.
    const CLASS: ConnectionClass = ConnectionClass::Ordinary;
    /// The features of this kind that are understood here, a bit each; see [`Rpc::features`].
    const FEATURES: u16 = 0;
    /// What answers it. Of a request that is answered in chunks it is one chunk.
    type Reply: Serialize + DeserializeOwned + Send + 'static;

    /// The features that this request uses and that must not be ignored, a bit each. A field that an older node may pass
    /// over needs none; for any other a bit is set where the field is used, and a node that does not know the bit
    /// refuses the request.
    fn features(&self) -> u16 {
        0
    }
}

/// What is known of a kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kind {
    /// Its number.
    pub number: u16,
    /// Its name in logs and errors.
    pub name: &'static str,
    /// What comes back.
    pub stream: StreamKind,
    /// The features that are understood here.
    pub features: u16,
}

/// Number of a gossip message, which is no [`Rpc`]: it has one direction, and its body is chitchat's.
pub const GOSSIP_KIND: u16 = 200;

impl Kind {
    /// What is known of the kind of this number.
    pub fn of(number: u16) -> Option<&'static Self> {
        KINDS.binary_search_by_key(&number, |kind| kind.number).ok().map(|place| &KINDS[place])
    }

    /// Checks that a request asks for what this kind gives, and uses no feature that is not known here.
    ///
    /// # Errors
    /// [`ErrorCode::Protocol`] where it does not.
    pub fn check(&self, stream: StreamKind, features: u16) -> Result<(), RpcError> {
        let Self { name, stream: own, features: known, .. } = *self;
        if stream != own {
            let message = format_args!("{name} is answered as {own:?}, and {stream:?} was asked for");
            return Err(RpcError::new(ErrorCode::Protocol, message));
        }
        let unknown = features & !known;
        if unknown != 0 {
            let message = format_args!(
                "{name} needs features {unknown:#06x}, which this node does not know: run the same release on both sides"
            );
            return Err(RpcError::new(ErrorCode::Protocol, message));
        }
        Ok(())
    }
}

macro_rules! rpc {
    ($($request:ident = $kind:literal -> $reply:ty $(, in $stream:ident)? $(, by $class:ident)? $(, needs $bit:literal for $field:ident)?;)*) => {
        $(impl Rpc for $request {
            const KIND: u16 = $kind;
            const NAME: &'static str = stringify!($request);
            $(const STREAM: StreamKind = StreamKind::$stream;)?
            $(const CLASS: ConnectionClass = ConnectionClass::$class;)?
            type Reply = $reply;
            $(
                const FEATURES: u16 = $bit;

                fn features(&self) -> u16 {
                    if self.$field.is_empty() { 0 } else { $bit }
                }
            )?
        })*
        /// Every kind, in the order of their numbers.
        pub const KINDS: &[Kind] = &[
            $(Kind {
                number: $kind,
                name: stringify!($request),
                stream: <$request as Rpc>::STREAM,
                features: <$request as Rpc>::FEATURES,
            },)*
            Kind { number: GOSSIP_KIND, name: "Gossip", stream: StreamKind::OneWay, features: 0 },
        ];
    };
}

rpc! {
    Hello = 1 -> HelloReply;
    CreateCollection = 2 -> CollectionInfo;
    DropCollection = 3 -> Dropped;
    ListCollections = 4 -> Vec<CollectionInfo>;
    DescribeCollection = 5 -> CollectionInfo;
    Put = 6 -> Vec<Outcome>, needs 1 for stamps;
    Get = 7 -> Vec<Option<RawStoredPoint>>;
    Delete = 8 -> Vec<Outcome>, needs 1 for stamps;
    Search = 9 -> RawSearchReply;
    Scan = 10 -> ScanReply;
    Status = 11 -> StatusReply;
    RingInfo = 12 -> RingReply;
    TakeSnapshot = 13 -> Vec<SnapshotReport>;
    ScanStream = 14 -> ScanReply, in Chunks, by Bulk;
    Stamp = 15 -> Vec<Stamped>;
    Members = 16 -> MembersReply;
    Join = 100 -> JoinReply;
    CatalogFetch = 101 -> Vec<CatalogEntry>;
    CatalogApply = 102 -> Dropped;
    ReplicaVersions = 103 -> Vec<Option<Version>>;
    ReplicaApply = 104 -> Vec<Outcome>;
    ReplicaRead = 105 -> Vec<Option<Record>>;
    ReplicaSearch = 106 -> ReplicaHits;
    ReplicaScan = 107 -> ReplicaScanReply, by Bulk;
    NodeSnapshot = 108 -> Vec<SnapshotReport>;
    NodeStats = 109 -> NodeStatsReply;
    Probe = 110 -> ProbeReply;
}

#[cfg(test)]
mod tests {
    use vecino_model::{Level, PointId};

    use super::*;

    #[test]
    fn kinds_are_distinct_and_ordered() {
        assert!(KINDS.windows(2).all(|pair| pair[0].number < pair[1].number));
    }

    #[test]
    fn a_feature_that_is_not_known_is_refused_by_name_and_one_that_is_known_is_not() {
        let kind = Kind { features: 0b101, ..*Kind::of(Search::KIND).unwrap() };
        assert_eq!(kind.check(StreamKind::Reply, 0b001), Ok(()));
        let refused = kind.check(StreamKind::Reply, 0b110).unwrap_err();
        assert_eq!(refused.code, ErrorCode::Protocol);
        assert!(refused.message.contains("Search") && refused.message.contains("0x0002"), "{refused}");
        assert!(kind.check(StreamKind::Chunks, 0).unwrap_err().message.contains("Chunks"));
    }

    /// A node that passed over the stamps of a put would stamp it anew.
    #[test]
    fn stamps_must_be_understood() {
        let put = |stamps| Put { collection: "c".into(), points: Vec::new(), level: Level::Quorum, stamps };
        assert_eq!((put(Vec::new()).features(), put(vec![Version::ZERO]).features()), (0, 1));
        assert_eq!(Kind::of(Delete::KIND).unwrap().features, 1);
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
