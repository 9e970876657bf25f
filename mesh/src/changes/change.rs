//! The kinds of changes.

use std::collections::{BTreeMap, BTreeSet};

use vecino_model::{CollectionId, CollectionSchema, DiskId, Fsync, MeshId, NodeId, Placement};

use super::layout::{LayoutNode, Placing};

/// A restore of a backup: 16 random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RestoreId(pub [u8; 16]);

/// One change of what a mesh agrees on.
///
/// It carries everything that its effect depends on beside the state: no clock, chance or rule that may differ between
/// versions of the program decides when it is applied. What it was made for is named in it (a layout, the disk before), and
/// where the state is another by then, it has no effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The mesh begins. In entry 1 alone, as its first change.
    Form {
        /// The mesh.
        mesh: MeshId,
        /// Its first members, which are the nodes of layout 1.
        members: BTreeMap<NodeId, Newcomer>,
        /// Those among them that accept entry 2.
        acceptors: BTreeMap<NodeId, DiskId>,
    },
    /// A collection of a mesh that had no log of changes, where it lies. In entry 1 alone.
    Adopt {
        /// The collection.
        id: CollectionId,
        /// Its name, which no other has by now.
        name: String,
        /// Its schema.
        schema: CollectionSchema,
        /// The nodes that keep it, with their tokens.
        placement: Placement,
    },
    /// A node becomes a member, and part of a new layout.
    Join {
        /// The node.
        node: NodeId,
        /// What it comes with.
        newcomer: Newcomer,
        /// The layout that its tokens were chosen for.
        after: u64,
    },
    /// A node is to keep nothing any more, and is not part of a new layout.
    Leave {
        /// The node.
        node: NodeId,
        /// The layout that it is taken out of.
        after: u64,
        /// Whether it is dead, and others copy from others.
        is_dead: bool,
    },
    /// A node that keeps nothing any more is no member from now on.
    Part {
        /// The node.
        node: NodeId,
    },
    /// Every member has another place from now on.
    Rearrange {
        /// The layout that is followed.
        after: u64,
        /// Every node of the new one.
        nodes: BTreeMap<NodeId, LayoutNode>,
    },
    /// Other nodes accept entries from the next one on.
    Seat {
        /// The entry that named those before.
        after: u64,
        /// Node and disk of each.
        acceptors: BTreeMap<NodeId, DiskId>,
    },
    /// The disk of a member is not the one that it was: nothing on it votes until it is filled.
    ReplaceDisk {
        /// The node.
        node: NodeId,
        /// The disk that is gone.
        was: DiskId,
        /// The disk that is there.
        disk: DiskId,
    },
    /// What a member has of one collection is damaged, or gone: it does not vote until it is filled.
    ReplaceCopy {
        /// The node.
        node: NodeId,
        /// The collection.
        id: CollectionId,
        /// The number of the copy that is gone.
        was: u64,
    },
    /// A member has everything again of these collections.
    Filled {
        /// The node.
        node: NodeId,
        /// The collections, each with the number of the copy that was filled.
        copies: BTreeMap<CollectionId, u64>,
    },
    /// A collection comes to be, on the newest layout.
    Create {
        /// Its id, which no other ever had.
        id: CollectionId,
        /// Its name.
        name: String,
        /// Its schema, with the number of its replicas.
        schema: CollectionSchema,
        /// The restore that alone may write to it, if it is made for one.
        restoring: Option<RestoreId>,
    },
    /// A restore is over: everybody may write to the collection.
    EndRestore {
        /// The collection.
        id: CollectionId,
        /// The restore.
        restore: RestoreId,
    },
    /// Writes to a collection become durable in another way.
    SetFsync {
        /// The collection.
        id: CollectionId,
        /// How.
        fsync: Fsync,
    },
    /// A collection is dropped.
    Drop {
        /// The collection.
        id: CollectionId,
    },
    /// Every member has installed the drop of these collections: nobody need know of them any more.
    Forget {
        /// The collections.
        ids: BTreeSet<CollectionId>,
    },
    /// Collections begin to move: every operation needs the quorums of both places.
    BeginMove {
        /// The collections, each with its `since`.
        collections: BTreeMap<CollectionId, u64>,
        /// Where to.
        to: Placing,
        /// The nodes that keep ranges there which they do not keep yet.
        gaining: BTreeSet<NodeId>,
    },
    /// A node has everything that it gains by the moves of these collections.
    Gained {
        /// The node.
        node: NodeId,
        /// The disk that it is on.
        disk: DiskId,
        /// The collections, each with the entry that began its move.
        moves: BTreeMap<CollectionId, u64>,
    },
    /// Collections have moved: every node has what it gains.
    EndMove {
        /// The collections, each with the entry that began its move.
        moves: BTreeMap<CollectionId, u64>,
    },
    /// Collections stay where they were.
    TurnBack {
        /// The collections, each with the entry that began its move.
        moves: BTreeMap<CollectionId, u64>,
    },
}

/// What a node comes with that becomes a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newcomer {
    /// Its disk.
    pub disk: DiskId,
    /// Its place.
    pub place: LayoutNode,
}
