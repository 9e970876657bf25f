//! Layouts: who has which places on the ring.

use std::collections::{BTreeMap, BTreeSet};

use vecino_model::{NodeId, Placement};

/// The place of one node in a layout.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LayoutNode {
    /// What its replicas are spread over first: nodes of one zone may fail together. Empty where nobody said.
    pub zone: String,
    /// Its tokens.
    pub tokens: Vec<u64>,
}

/// Nodes with their zones and tokens. It never changes; another one follows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// By id.
    pub nodes: BTreeMap<NodeId, LayoutNode>,
}

impl Layout {
    /// Number of nodes that keep something.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether it has no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The zones that its nodes are in.
    pub fn zones(&self) -> BTreeSet<&str> {
        self.nodes.values().map(|node| node.zone.as_str()).collect()
    }

    /// The nodes with their tokens.
    pub fn placement(&self) -> Placement {
        self.nodes.iter().map(|(node, LayoutNode { zone: _, tokens })| (*node, tokens.clone())).collect()
    }
}

/// Where a collection lies: a layout, and how many nodes keep each point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placing {
    /// Number of the layout.
    pub layout: u64,
    /// Number of distinct nodes that keep each point.
    pub replicas: u32,
}
