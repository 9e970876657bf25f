//! What other nodes have missed and the disk does not take: in memory, within a bound.

use std::collections::{BTreeMap, VecDeque};

use vecino_model::{CollectionId, NodeId, Record};

use super::batch::{Gathering, HintBatch};

/// Most bytes that are held.
pub(super) const HELD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What is held has numbers from here on; no log gets so far.
const HELD_FROM: u64 = 1 << 63;

/// One record that a node has missed.
pub(super) struct Hint {
    pub(super) collection: CollectionId,
    /// When it was missed, in milliseconds since 1970.
    pub(super) since_ms: u64,
    pub(super) record: Record,
}

/// What is held for each node, the oldest first.
#[derive(Default)]
pub(super) struct Held {
    by_node: BTreeMap<NodeId, VecDeque<(u64, Hint)>>,
    bytes: usize,
    added: u64,
}

impl Held {
    /// Whether a number is one of what is held.
    pub(super) fn is_number(number: u64) -> bool {
        number >= HELD_FROM
    }

    /// The nodes that something is held for.
    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.by_node.keys().copied()
    }

    /// Number of records that are held for a node.
    pub(super) fn waiting(&self, node: NodeId) -> u64 {
        self.by_node.get(&node).map_or(0, VecDeque::len) as u64
    }

    /// Bytes of records.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Holds one record more.
    pub(super) fn add(&mut self, node: NodeId, hint: Hint) {
        self.bytes += hint.record.bytes();
        self.by_node.entry(node).or_default().push_back((HELD_FROM + self.added, hint));
        self.added += 1;
    }

    /// What is held for a node, which is held no more.
    pub(super) fn take(&mut self, node: NodeId) -> Vec<Hint> {
        let taken: Vec<Hint> = self.by_node.remove(&node).into_iter().flatten().map(|(_, hint)| hint).collect();
        self.bytes -= taken.iter().map(|hint| hint.record.bytes()).sum::<usize>();
        taken
    }

    /// Forgets the oldest until it takes no more bytes than this; gives how many records that were.
    pub(super) fn hold_at_most(&mut self, bytes: usize) -> u64 {
        let mut forgotten = 0;
        while self.bytes > bytes {
            let oldest = self.by_node.iter().filter_map(|(node, held)| Some((held.front()?.0, *node))).min();
            let Some((_, node)) = oldest else { break };
            self.drop_first(node, 1);
            forgotten += 1;
        }
        forgotten
    }

    /// Forgets what a node missed before this time; gives how many records that were.
    pub(super) fn forget_before(&mut self, node: NodeId, since_ms: u64) -> u64 {
        let Some(held) = self.by_node.get(&node) else { return 0 };
        let too_old = held.iter().take_while(|(_, hint)| hint.since_ms < since_ms).count();
        self.drop_first(node, too_old);
        too_old as u64
    }

    /// The oldest of what is held for a node, of one collection, as much as goes into one request.
    pub(super) fn next(&self, node: NodeId) -> Option<HintBatch> {
        let mut batch = Gathering::default();
        for (number, hint) in self.by_node.get(&node)? {
            if !batch.takes(hint.collection) {
                break;
            }
            batch.add(hint.collection, hint.record.clone(), *number);
        }
        batch.finish()
    }

    /// A node has everything up to this number.
    pub(super) fn taken(&mut self, node: NodeId, last: u64) {
        let taken = |held: &VecDeque<(u64, Hint)>| held.iter().take_while(|(number, _)| *number <= last).count();
        let taken = self.by_node.get(&node).map_or(0, taken);
        self.drop_first(node, taken);
    }

    fn drop_first(&mut self, node: NodeId, count: usize) {
        let Some(held) = self.by_node.get_mut(&node) else { return };
        self.bytes -= held.drain(..count).map(|(_, hint)| hint.record.bytes()).sum::<usize>();
        if held.is_empty() {
            self.by_node.remove(&node);
        }
    }
}
