//! Reads and writes on the replicas of points, as pure state machines.
//!
//! A batch of points is written by [`write::Write`] and read by [`read::Read`]. Each is `event -> commands`: no clock, no
//! socket, no task. The operations of a node carry the commands out and bring the answers back.
//!
//! At `quorum` a point is a linearizable register: multi-writer ABD (Attiya, Bar-Noy, Dolev, "Sharing Memory Robustly
//! in Message-Passing Systems", 1995; Lynch and Shvartsman, "Robust Emulation of Shared Memory Using Dynamic
//! Quorum-Acknowledged Broadcasts", 1997). A put asks a majority for versions, stamps its points newer than all of
//! them, and writes to all replicas, done when a majority has it. A get reads a majority and, where they differ, writes
//! the newest back before it answers.

pub mod read;
pub mod write;

use std::collections::BTreeMap;

use vecino_model::NodeId;

/// Index of a point in its batch.
pub type PointIndex = usize;

/// The replicas of each point of a batch.
pub type Replicas = Vec<Vec<NodeId>>;

/// Groups points by the node that they go to.
fn by_node(pairs: impl IntoIterator<Item = (NodeId, PointIndex)>) -> BTreeMap<NodeId, Vec<PointIndex>> {
    let mut groups: BTreeMap<NodeId, Vec<PointIndex>> = BTreeMap::new();
    for (node, point) in pairs {
        groups.entry(node).or_default().push(point);
    }
    groups
}

/// Remembers why replicas failed, in few words.
#[derive(Clone, Debug, Default)]
struct Failures {
    reasons: BTreeMap<NodeId, String>,
}

impl Failures {
    fn add(&mut self, node: NodeId, reason: &str) {
        self.reasons.entry(node).or_insert_with(|| reason.to_owned());
    }

    /// "node 1a2b3c4d: connection refused; node …", of those in `replicas`.
    fn of(&self, replicas: &[NodeId]) -> String {
        let told: Vec<String> = replicas
            .iter()
            .filter_map(|node| Some(format!("node {}: {}", node.short(), self.reasons.get(node)?)))
            .collect();
        if told.is_empty() { "no answer in time".to_owned() } else { told.join("; ") }
    }
}
