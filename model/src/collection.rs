//! Collections as a mesh knows them: their ids, where they lie, and what a node says of those that it keeps.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{CollectionSchema, NodeId, Version};

/// Id of a collection, new each time one is created: 16 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CollectionId(#[serde(with = "serde_bytes")] pub [u8; 16]);

impl fmt::Display for CollectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CollectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CollectionId({self})")
    }
}

/// Nodes and their tokens.
pub type Placement = BTreeMap<NodeId, Vec<u64>>;

/// One name in the catalog, as nodes replicate it. Of two entries with one name, the later version stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CatalogEntry {
    /// Collection name.
    pub name: String,
    /// When it was created or dropped.
    pub version: Version,
    /// Id of the collection that this entry creates or drops.
    pub id: CollectionId,
    /// What it is; absent once dropped.
    pub live: Option<LiveCollection>,
}

/// A collection that exists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LiveCollection {
    /// Its schema.
    pub schema: CollectionSchema,
    /// The nodes that keep its points, with their tokens, fixed when it was created.
    pub placement: Placement,
}

/// What one node holds of one collection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CollectionStats {
    /// Live points on this node.
    pub points: u64,
    /// Tombstones on this node.
    pub tombstones: u64,
    /// Live points that are not linked into the graph yet; they are searched exactly.
    pub unlinked: u64,
    /// Bytes of write-ahead log on disk.
    pub log_bytes: u64,
    /// Bytes of vectors and graph in memory.
    pub index_bytes: u64,
    /// Bytes of memory that the collection takes in all: index, ids, payloads, versions.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Log sequence number of the last snapshot.
    pub snapshot_lsn: u64,
    /// Why the collection does not serve here, if it does not, or what has panicked in it and what is done about that.
    pub error: Option<String>,
    /// How the collection serves on this node.
    #[serde(default)]
    pub serving: Serving,
    /// How far opening or warming is.
    #[serde(default)]
    pub percent: Option<u8>,
}

/// How a node serves a collection that it keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Serving {
    /// In full.
    #[default]
    Open,
    /// Searches are slower than they will be: codes are being made.
    Warming,
    /// It is being opened; requests wait.
    Opening,
    /// Nobody asked for it lately: the next request opens it. What is counted is what it held when it was last open.
    Closed,
    /// It cannot be opened; it is tried again every now and then.
    Failed,
    /// What lies on disk is damaged or incomplete: other replicas have what is missing.
    NeedsCopy,
    /// What a newer version calls otherwise.
    #[serde(other)]
    Unknown,
}

impl Serving {
    /// What people are told.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Warming => "warming",
            Self::Opening => "opening",
            Self::Closed => "closed",
            Self::Failed => "failed",
            Self::NeedsCopy => "needs copy from replicas",
            Self::Unknown => "unknown",
        }
    }
}

/// How a node's wall clock stands to the median of its own and those of the members that it hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClockStatus {
    /// Milliseconds that it is ahead of the median; less than 0 where it is behind.
    pub ahead_ms: i64,
    /// Number of other members that it hears.
    pub heard: u32,
    /// Whether it is so far off that the node gives no versions at level `one`, where clocks decide.
    pub refuses_one: bool,
}

impl ClockStatus {
    /// A clock that stands so.
    pub fn new(ahead_ms: i64, heard: u32, refuses_one: bool) -> Self {
        Self { ahead_ms, heard, refuses_one }
    }
}

/// What a node takes of the memory that it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// Bytes that it uses, requests under way among them.
    pub used_bytes: u64,
    /// Bytes from which on it refuses puts.
    pub limit_bytes: u64,
}
