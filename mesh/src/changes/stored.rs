//! What of changes and states is encoded: types of their own, so that what travels and what the program works with may
//! change without what was agreed. MessagePack without the names of fields: a field that is added comes last, with a
//! default, and only together with a new format of its kind of change, for the bytes of a state are hashed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use vecino_model::{CollectionId, CollectionSchema, DiskId, FieldSchema, Fsync, Metric, NodeId, Profile};

use super::change::Newcomer;
use super::layout::{Layout, LayoutNode, Placing};

/// 16 raw bytes: the id of a node, a disk, a collection, a mesh or a restore.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Id(#[serde(with = "serde_bytes")] pub [u8; 16]);

#[derive(Serialize, Deserialize)]
pub(super) struct StoredNewcomer(pub Id, pub StoredPlace);

#[derive(Serialize, Deserialize)]
pub(super) struct StoredPlace(String, Vec<u64>);

#[derive(Serialize, Deserialize)]
pub(super) struct StoredPlacing(u64, u32);

/// A number for each collection.
pub(super) type Numbers = BTreeMap<Id, u64>;

pub(super) type StoredLayout = BTreeMap<Id, StoredPlace>;

#[derive(Serialize, Deserialize)]
pub(super) struct StoredSchema {
    fields: BTreeMap<String, StoredField>,
    replication_factor: u32,
    fsync: StoredFsync,
}

#[derive(Serialize, Deserialize)]
struct StoredField {
    dim: u32,
    metric: u8,
    m: u32,
    ef_construction: u32,
    profile: u8,
}

/// 0 for always, 1 for never, 2 and the milliseconds for every so often.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredFsync(u8, u32);

/// A number that stands for nothing that this program knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {number} is not known")]
pub(super) struct UnknownNumber {
    what: &'static str,
    number: u8,
}

pub(super) fn id(node: &NodeId) -> Id {
    Id(*node.as_bytes())
}

pub(super) fn node(id: Id) -> NodeId {
    NodeId::from_bytes(id.0)
}

pub(super) fn disks(disks: &BTreeMap<NodeId, DiskId>) -> BTreeMap<Id, Id> {
    disks.iter().map(|(node, disk)| (id(node), Id(disk.0))).collect()
}

pub(super) fn from_disks(disks: BTreeMap<Id, Id>) -> BTreeMap<NodeId, DiskId> {
    disks.into_iter().map(|(of, disk)| (node(of), DiskId(disk.0))).collect()
}

pub(super) fn nodes(nodes: &BTreeSet<NodeId>) -> BTreeSet<Id> {
    nodes.iter().map(id).collect()
}

pub(super) fn numbers(numbers: &BTreeMap<CollectionId, u64>) -> Numbers {
    numbers.iter().map(|(id, number)| (Id(id.0), *number)).collect()
}

pub(super) fn from_numbers(numbers: Numbers) -> BTreeMap<CollectionId, u64> {
    numbers.into_iter().map(|(id, number)| (CollectionId(id.0), number)).collect()
}

pub(super) fn layout(layout: &Layout) -> StoredLayout {
    layout.nodes.iter().map(|(node, place)| (id(node), place.into())).collect()
}

pub(super) fn from_layout(stored: StoredLayout) -> Layout {
    Layout { nodes: stored.into_iter().map(|(id, place)| (node(id), place.into())).collect() }
}

impl From<&LayoutNode> for StoredPlace {
    fn from(LayoutNode { zone, tokens }: &LayoutNode) -> Self {
        Self(zone.clone(), tokens.clone())
    }
}

impl From<StoredPlace> for LayoutNode {
    fn from(StoredPlace(zone, tokens): StoredPlace) -> Self {
        Self { zone, tokens }
    }
}

impl From<&Newcomer> for StoredNewcomer {
    fn from(Newcomer { disk, place }: &Newcomer) -> Self {
        Self(Id(disk.0), place.into())
    }
}

impl From<StoredNewcomer> for Newcomer {
    fn from(StoredNewcomer(disk, place): StoredNewcomer) -> Self {
        Self { disk: DiskId(disk.0), place: place.into() }
    }
}

impl From<Placing> for StoredPlacing {
    fn from(Placing { layout, replicas }: Placing) -> Self {
        Self(layout, replicas)
    }
}

impl From<StoredPlacing> for Placing {
    fn from(StoredPlacing(layout, replicas): StoredPlacing) -> Self {
        Self { layout, replicas }
    }
}

impl From<&CollectionSchema> for StoredSchema {
    fn from(CollectionSchema { fields, replication_factor, fsync }: &CollectionSchema) -> Self {
        let fields = fields.iter().map(|(name, field)| (name.clone(), field.into())).collect();
        Self { fields, replication_factor: *replication_factor, fsync: (*fsync).into() }
    }
}

impl TryFrom<StoredSchema> for CollectionSchema {
    type Error = UnknownNumber;

    fn try_from(stored: StoredSchema) -> Result<Self, UnknownNumber> {
        let StoredSchema { fields, replication_factor, fsync } = stored;
        let field = |(name, field): (String, StoredField)| Ok((name, field.try_into()?));
        let fields: Result<_, UnknownNumber> = fields.into_iter().map(field).collect();
        Ok(Self { fields: fields?, replication_factor, fsync: fsync.try_into()? })
    }
}

impl From<&FieldSchema> for StoredField {
    fn from(FieldSchema { dim, metric, m, ef_construction, profile }: &FieldSchema) -> Self {
        let metric = match metric {
            Metric::Cosine => 0,
            Metric::Euclidean => 1,
            Metric::Dot => 2,
            Metric::Manhattan => 3,
        };
        let profile = match profile {
            Profile::Fast => 0,
            Profile::Compact => 1,
            Profile::Plain => 2,
        };
        Self { dim: *dim, metric, m: *m, ef_construction: *ef_construction, profile }
    }
}

impl TryFrom<StoredField> for FieldSchema {
    type Error = UnknownNumber;

    fn try_from(stored: StoredField) -> Result<Self, UnknownNumber> {
        let StoredField { dim, metric, m, ef_construction, profile } = stored;
        let metric = match metric {
            0 => Metric::Cosine,
            1 => Metric::Euclidean,
            2 => Metric::Dot,
            3 => Metric::Manhattan,
            number => return Err(UnknownNumber { what: "metric", number }),
        };
        let profile = match profile {
            0 => Profile::Fast,
            1 => Profile::Compact,
            2 => Profile::Plain,
            number => return Err(UnknownNumber { what: "profile", number }),
        };
        Ok(Self { dim, metric, m, ef_construction, profile })
    }
}

impl From<Fsync> for StoredFsync {
    fn from(fsync: Fsync) -> Self {
        match fsync {
            Fsync::Always => Self(0, 0),
            Fsync::Never => Self(1, 0),
            Fsync::EveryMs(every) => Self(2, every),
        }
    }
}

impl TryFrom<StoredFsync> for Fsync {
    type Error = UnknownNumber;

    fn try_from(StoredFsync(kind, every): StoredFsync) -> Result<Self, UnknownNumber> {
        match kind {
            0 => Ok(Self::Always),
            1 => Ok(Self::Never),
            2 => Ok(Self::EveryMs(every)),
            number => Err(UnknownNumber { what: "fsync", number }),
        }
    }
}
