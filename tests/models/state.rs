//! What a state of the model is made of: messages, machines, and what the clients have seen.

use std::collections::BTreeSet;
use std::fmt;

use vecino_mesh::quorum::write;
use vecino_model::{NodeId, Version};
use vecino_simulation::checkers::history::Operation;

use crate::machine::Running;

/// How many replicas the point has.
pub const REPLICAS: usize = 3;
/// The writers: the value that each of them puts is its index and one.
pub const WRITERS: usize = 2;

/// Which machine: that of the first writer, that of its repetition, that of the second writer, those of the gets.
pub type Slot = usize;

pub const REPEAT: Slot = 1;
pub const SECOND_WRITER: Slot = 2;
pub const FIRST_GET: Slot = 3;

/// What is on its way between a machine and a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Content {
    AskVersion,
    Read,
    Apply {
        version: Version,
        /// Under which number a write wants to be told.
        send: write::SendNumber,
    },
    /// The version or the record that the replica has. The record's value is known by its version.
    Has {
        version: Option<Version>,
    },
    Applied {
        version: Version,
        send: write::SendNumber,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Message {
    pub slot: Slot,
    pub replica: usize,
    pub content: Content,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A client begins the operation of this slot.
    Begin(Slot),
    /// The first writer gives its put to another node.
    Repeat,
    /// The reader asks another replica.
    Hedge(Slot),
    /// To a replica, or to the machine that asked.
    Deliver(Message),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Message { slot, replica, content } = match self {
            Self::Begin(slot) => return write!(f, "{} begins", name_of(*slot)),
            Self::Repeat => return write!(f, "put 1 is sent again"),
            Self::Hedge(slot) => return write!(f, "{} asks one more", name_of(*slot)),
            Self::Deliver(message) => *message,
        };
        let (name, replica) = (name_of(slot), char::from(b'A' + replica as u8));
        match content {
            Content::AskVersion => write!(f, "{name} asks {replica} for its version"),
            Content::Read => write!(f, "{name} reads {replica}"),
            Content::Apply { version, .. } => write!(f, "{name} writes {} to {replica}", Shown(Some(version))),
            Content::Has { version } => write!(f, "{name} hears that {replica} has {}", Shown(version)),
            Content::Applied { version, .. } => write!(f, "{name} hears that {replica} took {}", Shown(Some(version))),
        }
    }
}

fn name_of(slot: Slot) -> String {
    match slot {
        0 => "put 1".to_owned(),
        REPEAT => "put 1, sent again,".to_owned(),
        SECOND_WRITER => "put 2".to_owned(),
        get => format!("get {}", get - FIRST_GET + 1),
    }
}

/// A value with the time of its version.
struct Shown(Option<Version>);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(version) => write!(f, "{} of version {}", value_of(version), version.time),
            None => write!(f, "nothing"),
        }
    }
}

/// All that can make a difference to what happens next, and what the clients have seen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub replicas: [Option<Version>; REPLICAS],
    pub machines: Vec<Running>,
    pub hedged: Vec<bool>,
    pub messages: BTreeSet<Message>,
    /// The stamp of the first writer's put, which it keeps over its repetition.
    pub kept: Option<Version>,
    /// By slot.
    pub operations: Vec<Option<Operation>>,
    /// Counts only as far as clients can tell the order: it goes on when an operation begins after another has ended.
    pub now: u64,
    pub has_one_ended: bool,
    pub is_linearizable: bool,
}

impl State {
    /// The history that the clients saw.
    pub fn history(&self) -> Vec<Operation> {
        self.operations.iter().flatten().copied().collect()
    }

    pub fn has_ended(&self, slot: Slot) -> bool {
        self.operations[slot].is_some_and(|operation| operation.done_at().is_some())
    }
}

pub fn node(number: usize) -> NodeId {
    NodeId::from_bytes([number as u8; 16])
}

/// Replicas are nodes 100 to 102, so that no writer is one of them.
pub fn replica(index: usize) -> NodeId {
    node(100 + index)
}

pub fn index_of(replica: NodeId) -> usize {
    usize::from(replica.as_bytes()[0]) - 100
}

/// Writers stamp with their value as the node.
pub fn value_of(version: Version) -> u64 {
    u64::from(version.node.as_bytes()[0])
}
