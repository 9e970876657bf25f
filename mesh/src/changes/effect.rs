//! What became of a change.

use vecino_model::{CollectionId, DiskId, NodeId};

/// Why a change had no effect. Whoever proposed it reads this, and nothing was changed by it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoEffect {
    /// A change that belongs to entry 1.
    #[error("the mesh has begun already")]
    Begun,
    /// The collection is not there.
    #[error("collection {0} does not exist")]
    NoCollection(CollectionId),
    /// The collection is there, or was.
    #[error("collection {0} has been made already")]
    IdInUse(CollectionId),
    /// Another collection has the name.
    #[error("collection {name:?} exists already: drop it first or choose another name")]
    NameInUse {
        /// The name.
        name: String,
        /// The collection that has it.
        id: CollectionId,
    },
    /// There are not enough nodes.
    #[error("{replicas} replicas of collection {name:?} need as many nodes, and there are {nodes}")]
    TooFewNodes {
        /// Of which collection.
        name: String,
        /// Its number of replicas.
        replicas: u32,
        /// How many nodes there are, or would be.
        nodes: usize,
    },
    /// The number of replicas makes no sense.
    #[error("a collection needs at least one replica")]
    NoReplicas,
    /// The node is no member.
    #[error("node {} is no member of the mesh", .0.short())]
    NoMember(NodeId),
    /// The node is a member.
    #[error("node {} is a member of the mesh, with disk {}", node.short(), disk.short())]
    Member {
        /// The node.
        node: NodeId,
        /// Its disk.
        disk: DiskId,
    },
    /// The node is leaving, or is to be removed, already.
    #[error("node {} is leaving already", .0.short())]
    LeavingAlready(NodeId),
    /// The node stays.
    #[error("node {} is to stay", .0.short())]
    Staying(NodeId),
    /// The node keeps something, or accepts entries.
    #[error("node {} keeps data still, or accepts changes", .0.short())]
    InUse(NodeId),
    /// The last node.
    #[error("node {} is the last one of the mesh", .0.short())]
    LastMember(NodeId),
    /// The node keeps nothing of the collection.
    #[error("node {} keeps nothing of collection {id}", node.short())]
    KeepsNothing {
        /// The node.
        node: NodeId,
        /// The collection.
        id: CollectionId,
    },
    /// The newest layout is another one by now.
    #[error("the newest layout is number {newest}, and the change is made for number {after}")]
    Layout {
        /// The newest layout.
        newest: u64,
        /// The one that was named.
        after: u64,
    },
    /// The nodes are not those of the newest layout, or have no tokens.
    #[error("the nodes are not those of the mesh, or have no tokens")]
    Nodes,
    /// Others were named since to accept entries, or those that are named are no members, or their number is even.
    #[error(
        "the nodes that accept changes are others by now, or are to be members, with their disks, and odd in number"
    )]
    Acceptors,
    /// The disk is another one by now.
    #[error("node {} has disk {}", node.short(), disk.short())]
    Disk {
        /// The node.
        node: NodeId,
        /// Its disk.
        disk: DiskId,
    },
    /// The copies are others by now, or are filled.
    #[error("the copies of node {} are others by now, or are filled", .0.short())]
    Copies(NodeId),
    /// The collections changed meanwhile, or do not move, or not to there, or somebody lacks something still.
    #[error("none of the collections is as the change says")]
    Moved,
    /// The restore is over, or another one.
    #[error("collection {0} is not being restored by that")]
    NoRestore(CollectionId),
    /// It is so already.
    #[error("it is so already")]
    Same,
}
