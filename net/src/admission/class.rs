//! Classes of requests, each with room of its own, so that none keeps another out; and how long a request may last.

use std::ops::Index;
use std::time::Duration;

use crate::frame::StreamKind;
use crate::message::{
    CatalogApply, CatalogFetch, ConnectionClass, GOSSIP_KIND, Join, Kind, NodeSnapshot, Rpc, TakeSnapshot,
};
use crate::rpc::{DEADLINE_MAX, PEER_KIND_MIN};

/// Longest deadline of a request that has one reply; a caller that asks for more gets this.
pub const BRIEF_DEADLINE_MAX: Duration = Duration::from_secs(60);
/// Kinds with one reply that may take as long as the data is large.
const LONG_KINDS: [u16; 2] = [TakeSnapshot::KIND, NodeSnapshot::KIND];
/// Kinds by which nodes agree on members and collections.
const AGREEMENT_KINDS: [u16; 4] = [Join::KIND, CatalogFetch::KIND, CatalogApply::KIND, GOSSIP_KIND];

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Class {
    /// What applications and people ask, with one reply.
    Client,
    /// What applications and people ask and what may last: scans in chunks, and snapshots.
    Export,
    /// What a node asks another one for a request of a client.
    Replica,
    /// Moving and repairing data: what nodes ask on the connection for what is large, and snapshots.
    Repair,
    /// What nodes agree on: members and collections. Gossip is of it, and takes no place, as nothing waits for it.
    Agreement,
}

impl Class {
    /// Every class, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Client, Self::Export, Self::Replica, Self::Repair, Self::Agreement];

    /// The class of a request of this kind that came on a connection of that class.
    pub fn of(kind: &Kind, connection: ConnectionClass) -> Self {
        let lasts = is_long(kind);
        match kind.number {
            number if number < PEER_KIND_MIN && lasts => Self::Export,
            number if number < PEER_KIND_MIN => Self::Client,
            number if AGREEMENT_KINDS.contains(&number) => Self::Agreement,
            _ if lasts || connection == ConnectionClass::Bulk => Self::Repair,
            _ => Self::Replica,
        }
    }

    /// Its name in errors.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "requests of clients",
            Self::Export => "scans and snapshots of clients",
            Self::Replica => "requests of nodes",
            Self::Repair => "moves and repairs",
            Self::Agreement => "agreements of nodes",
        }
    }
}

/// The longest deadline that a request of this kind gets. One that asks for more is cut to it.
pub fn deadline_max(kind: &Kind) -> Duration {
    if is_long(kind) { DEADLINE_MAX } else { BRIEF_DEADLINE_MAX }
}

fn is_long(kind: &Kind) -> bool {
    kind.stream == StreamKind::Chunks || LONG_KINDS.contains(&kind.number)
}

/// One value for each class.
#[derive(Clone, Copy, Debug)]
pub struct ByClass<T>([T; Class::ALL.len()]);

impl<T> ByClass<T> {
    /// What this gives for each class.
    pub fn new(value: impl FnMut(Class) -> T) -> Self {
        Self(Class::ALL.map(value))
    }
}

impl<T> Index<Class> for ByClass<T> {
    type Output = T;

    fn index(&self, class: Class) -> &T {
        &self.0[class as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Hello, KINDS, Put, ReplicaApply, ReplicaScan, ScanStream, Search, Status};

    fn class(number: u16, connection: ConnectionClass) -> Class {
        Class::of(Kind::of(number).unwrap(), connection)
    }

    #[test]
    fn requests_fall_into_the_class_of_what_they_are_for() {
        use ConnectionClass::{Bulk, Ordinary};
        for kind in [Hello::KIND, Put::KIND, Search::KIND, Status::KIND] {
            assert_eq!(class(kind, Ordinary), Class::Client);
            assert_eq!(class(kind, Bulk), Class::Client, "a client cannot choose its class by its hello");
        }
        assert_eq!(class(ScanStream::KIND, Bulk), Class::Export);
        assert_eq!(class(TakeSnapshot::KIND, Ordinary), Class::Export);
        assert_eq!(class(ReplicaApply::KIND, Ordinary), Class::Replica);
        assert_eq!(class(ReplicaApply::KIND, Bulk), Class::Repair, "as moves send it");
        assert_eq!(class(ReplicaScan::KIND, Bulk), Class::Repair);
        assert_eq!(class(NodeSnapshot::KIND, Ordinary), Class::Repair);
        for kind in AGREEMENT_KINDS {
            assert_eq!((class(kind, Ordinary), class(kind, Bulk)), (Class::Agreement, Class::Agreement));
        }
    }

    #[test]
    fn only_chunks_and_snapshots_may_last_longer_than_a_minute() {
        let long = KINDS.iter().filter(|kind| deadline_max(kind) > Duration::from_secs(60));
        let long: Vec<_> = long.map(|kind| kind.name).collect();
        assert_eq!(long, ["TakeSnapshot", "ScanStream", "NodeSnapshot"]);
    }

    #[test]
    fn every_class_has_a_value_of_its_own() {
        let names = ByClass::new(Class::name);
        assert!(Class::ALL.iter().all(|class| names[*class] == class.name()));
    }
}
