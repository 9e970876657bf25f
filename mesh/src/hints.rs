//! Writes that reached their level and not every replica: for which nodes something waits, and what is on its way to the
//! disk.
//!
//! What they have missed is on the disk of this node, which keeps it over restarts, forgets the oldest beyond its limits,
//! and hands it out in batches. Here is what decisions need: which nodes to deliver to, and whether one more write may
//! wait for the disk.

use std::collections::BTreeMap;

use vecino_model::NodeId;

/// Most bytes of hints on their way to the disk. Where it is slower than hints come, those that come are forgotten.
pub const KEEPING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What other nodes have missed, in numbers.
#[derive(Debug, Default)]
pub struct Hints {
    waiting: BTreeMap<NodeId, u64>,
    /// The number of the last answer about each node.
    heard: BTreeMap<NodeId, u64>,
    keeping_bytes: usize,
    forgotten: u64,
}

impl Hints {
    /// Of a node on whose disk this many records wait for each other.
    pub fn new(waiting: BTreeMap<NodeId, u64>) -> Self {
        Self { waiting, ..Self::default() }
    }

    /// Whether records of this many bytes may go to the disk. What may not is forgotten.
    pub fn begin_keeping(&mut self, records: usize, bytes: usize) -> bool {
        let is_room = self.keeping_bytes + bytes <= KEEPING_BYTES_MAX || self.keeping_bytes == 0;
        if is_room {
            self.keeping_bytes += bytes;
        } else {
            self.forgotten += records as u64;
        }
        is_room
    }

    /// The disk has them, or could not take them.
    pub fn end_keeping(&mut self, bytes: usize) {
        self.keeping_bytes -= bytes;
    }

    /// This many records waited for a node when the disk gave the answer of this number. An answer that a later one has
    /// overtaken changes nothing.
    pub fn set_waiting(&mut self, node: NodeId, number: u64, waiting: u64) {
        let heard = self.heard.entry(node).or_default();
        if number < *heard {
            return;
        }
        *heard = number;
        if waiting == 0 {
            self.waiting.remove(&node);
        } else {
            self.waiting.insert(node, waiting);
        }
    }

    /// Number of records that wait for each node.
    pub fn waiting(&self) -> &BTreeMap<NodeId, u64> {
        &self.waiting
    }

    /// Number of records that were forgotten since the disk was too slow.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_comes_late_does_not_hide_what_waits() {
        let node = NodeId::from_bytes([1; 16]);
        let mut hints = Hints::new(BTreeMap::from([(node, 4)]));
        // The last of the four was taken, and then another kept; the answers come the other way round.
        hints.set_waiting(node, 8, 1);
        hints.set_waiting(node, 7, 0);
        assert_eq!(hints.waiting(), &BTreeMap::from([(node, 1)]));
        hints.set_waiting(node, 9, 0);
        assert!(hints.waiting().is_empty());
    }

    #[test]
    fn hints_on_their_way_to_the_disk_are_bounded() {
        let mut hints = Hints::default();
        assert!(hints.begin_keeping(1, KEEPING_BYTES_MAX + 1), "one batch goes in any case");
        assert!(!hints.begin_keeping(7, 1));
        assert_eq!(hints.forgotten(), 7);
        hints.end_keeping(KEEPING_BYTES_MAX + 1);
        assert!(
            hints.begin_keeping(1, KEEPING_BYTES_MAX - 1) && hints.begin_keeping(1, 1) && !hints.begin_keeping(1, 1)
        );
        assert_eq!(hints.forgotten(), 8);
    }
}
