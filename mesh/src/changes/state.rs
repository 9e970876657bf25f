//! What a mesh agrees on: the fold of all entries so far.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vecino_model::{CollectionId, CollectionSchema, DiskId, MeshId, NodeId};

use super::change::RestoreId;
use super::hash::StateHash;
use super::layout::{Layout, Placing};

/// Members, layouts and collections after the entry of a number. Cheap to clone but for its maps: what they hold is shared.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub(super) mesh: MeshId,
    pub(super) recoveries: u32,
    pub(super) number: u64,
    pub(super) acceptors: BTreeMap<NodeId, DiskId>,
    pub(super) seated: u64,
    pub(super) members: BTreeMap<NodeId, MemberState>,
    pub(super) layouts: BTreeMap<u64, Arc<Layout>>,
    pub(super) collections: BTreeMap<CollectionId, Arc<CollectionState>>,
    pub(super) names: BTreeMap<String, CollectionId>,
    pub(super) dropped: BTreeMap<CollectionId, Dropped>,
    pub(super) hash: StateHash,
}

/// A node that belongs to the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberState {
    /// The disk that votes.
    pub disk: DiskId,
    /// Whether it stays.
    pub standing: Standing,
}

/// Whether a member stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    Staying,
    /// It hands over what it has, and goes then.
    Leaving,
    /// It is dead: others copy what it had from others.
    Dead,
}

/// A collection.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionState {
    /// Its name.
    pub name: String,
    /// Its schema.
    pub schema: CollectionSchema,
    /// Where it lies; its number of replicas is that of the schema.
    pub placing: Placing,
    /// Where it moves to, while it does.
    pub moving: Option<Moving>,
    /// The entry at which where it lies, the disk or the copy of one of its replicas, its schema or its restoring last changed.
    pub since: u64,
    /// The restore that alone may write to it.
    pub restoring: Option<RestoreId>,
    /// The copies of nodes that had to be filled once, or have to be.
    pub copies: BTreeMap<NodeId, Copy>,
}

/// A move under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moving {
    /// Where to.
    pub to: Placing,
    /// The entry that began it.
    pub begun: u64,
    /// Nodes that do not have everything yet that they gain.
    pub gaining: BTreeSet<NodeId>,
}

/// What a node has of a collection. Where nothing is known of it, it is the first copy, number 0, and has everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// The entry that said that the copy before it is gone.
    pub number: u64,
    /// Whether it has everything. Until then the node does not vote.
    pub is_filled: bool,
}

/// A collection that was dropped, and that some member may not know to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Its name.
    pub name: String,
    /// The entry that dropped it.
    pub at: u64,
}

impl State {
    /// The mesh.
    pub fn mesh(&self) -> MeshId {
        self.mesh
    }

    /// How often a majority of acceptors was lost for good and done without.
    pub fn recoveries(&self) -> u32 {
        self.recoveries
    }

    /// The number of the last entry in it: the epoch.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What is equal where everything else is.
    pub fn hash(&self) -> StateHash {
        self.hash
    }

    /// The nodes that accept the next entry, each with its disk.
    pub fn acceptors(&self) -> &BTreeMap<NodeId, DiskId> {
        &self.acceptors
    }

    /// The entry that named them.
    pub fn seated(&self) -> u64 {
        self.seated
    }

    /// The members.
    pub fn members(&self) -> &BTreeMap<NodeId, MemberState> {
        &self.members
    }

    /// The layouts that are in use, and the newest.
    pub fn layouts(&self) -> &BTreeMap<u64, Arc<Layout>> {
        &self.layouts
    }

    /// The newest layout, with its number.
    pub fn newest_layout(&self) -> (u64, &Arc<Layout>) {
        let (number, layout) =
            self.layouts.last_key_value().expect("entry 1 makes the first layout, and the newest stays");
        (*number, layout)
    }

    /// The collections.
    pub fn collections(&self) -> &BTreeMap<CollectionId, Arc<CollectionState>> {
        &self.collections
    }

    /// A collection.
    pub fn collection(&self, id: CollectionId) -> Option<&Arc<CollectionState>> {
        self.collections.get(&id)
    }

    /// The collection of a name.
    pub fn named(&self, name: &str) -> Option<CollectionId> {
        self.names.get(name).copied()
    }

    /// Collections that were dropped and are not forgotten yet.
    pub fn dropped(&self) -> &BTreeMap<CollectionId, Dropped> {
        &self.dropped
    }

    /// Whether a node keeps a part of a collection, where it lies or where it moves to.
    pub fn is_kept_by(&self, collection: &CollectionState, node: NodeId) -> bool {
        let layouts = collection.layouts().filter_map(|layout| self.layouts.get(&layout));
        layouts.into_iter().any(|layout| layout.nodes.contains_key(&node))
    }
}

impl CollectionState {
    /// The layout that it lies on, and the one that it moves to.
    pub fn layouts(&self) -> impl Iterator<Item = u64> {
        let moving = self.moving.as_ref().map(|moving| moving.to.layout);
        std::iter::once(self.placing.layout).chain(moving)
    }

    /// The number of what a node has of it.
    pub fn copy(&self, node: NodeId) -> u64 {
        self.copies.get(&node).map_or(0, |copy| copy.number)
    }

    /// Whether a node that keeps it votes: answers reads, searches and questions for versions.
    pub fn votes(&self, node: NodeId) -> bool {
        self.copies.get(&node).is_none_or(|copy| copy.is_filled)
    }
}
