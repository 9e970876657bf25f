//! Writes that reached their level and not every replica: what each replica missed, kept until it takes it.
//!
//! They are in memory, so they end with the process; and they are bounded in bytes and in age, and by the memory that the
//! node has for them. Beyond that the oldest are forgotten, and the replica is behind until it is repaired.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use vecino_model::{CollectionId, NodeId, Record};

use crate::time::Time;

/// Most bytes of hints, over all replicas.
pub const HINT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Hints that are older than this are forgotten.
pub const HINT_AGE_MAX: Duration = Duration::from_secs(3 * 3600);
/// Most records of one delivery.
const DELIVERY_RECORDS_MAX: usize = 1_000;
/// Bytes after which a delivery is not made larger.
const DELIVERY_BYTES: usize = 1024 * 1024;

/// Sets the number of bytes that count as hints in the node's memory. Gives `false`, and changes nothing, where that number
/// is greater than before and the node has no memory for it.
pub type HoldMemory = dyn Fn(usize) -> bool + Send + Sync;

/// What replicas have missed.
#[derive(Default)]
pub struct Hints {
    by_node: BTreeMap<NodeId, VecDeque<Hint>>,
    bytes: usize,
    forgotten: u64,
    memory: Option<Box<HoldMemory>>,
}

#[derive(Debug)]
struct Hint {
    collection: CollectionId,
    record: Record,
    since: Time,
}

impl Hints {
    /// Counts what is kept against the memory of the node.
    pub fn count_memory(&mut self, memory: Box<HoldMemory>) {
        self.memory = Some(memory);
    }

    /// Counts what is kept now; whether there is memory for it.
    fn hold(&self) -> bool {
        self.memory.as_ref().is_none_or(|hold| hold(self.bytes))
    }

    /// Keeps what a replica missed. Says whether it had missed nothing before.
    pub fn add(&mut self, node: NodeId, collection: CollectionId, record: Record, now: Time) -> bool {
        self.bytes += record.bytes();
        let missed = self.by_node.entry(node).or_default();
        let is_first = missed.is_empty();
        missed.push_back(Hint { collection, record, since: now });
        while (self.bytes > HINT_BYTES_MAX || !self.hold()) && self.forget_oldest() {}
        is_first
    }

    fn forget_oldest(&mut self) -> bool {
        let oldest = self.by_node.iter().filter_map(|(node, missed)| Some((missed.front()?.since, *node))).min();
        let Some((_, node)) = oldest else { return false };
        let forgotten = self.by_node.get_mut(&node).and_then(VecDeque::pop_front);
        self.bytes -= forgotten.map_or(0, |hint| hint.record.bytes());
        self.forgotten += 1;
        true
    }

    /// The oldest of what a replica missed, of one collection, as much as goes into one request. It is kept until
    /// [`Self::delivered`] is told.
    pub fn delivery(&mut self, node: NodeId, now: Time) -> Option<(CollectionId, Vec<Record>)> {
        let missed = self.by_node.get_mut(&node)?;
        while missed.front().is_some_and(|hint| now.since(hint.since) > HINT_AGE_MAX) {
            self.bytes -= missed.pop_front().map_or(0, |hint| hint.record.bytes());
            self.forgotten += 1;
        }
        self.hold();
        let missed = self.by_node.get(&node)?;
        let Some(collection) = missed.front().map(|hint| hint.collection) else {
            self.by_node.remove(&node);
            return None;
        };
        let (mut records, mut bytes) = (Vec::new(), 0);
        for hint in missed.iter().take(DELIVERY_RECORDS_MAX).take_while(|hint| hint.collection == collection) {
            if bytes > DELIVERY_BYTES {
                break;
            }
            bytes += hint.record.bytes();
            records.push(hint.record.clone());
        }
        Some((collection, records))
    }

    /// The replica has the records of the last delivery; or no collection to put them in.
    pub fn delivered(&mut self, node: NodeId, records: &[Record]) {
        let Some(missed) = self.by_node.get_mut(&node) else { return };
        for record in records {
            let is_it = |hint: &Hint| hint.record.id == record.id && hint.record.version == record.version;
            // Others may have been forgotten meanwhile, from the front.
            if missed.front().is_some_and(is_it) {
                missed.pop_front();
                self.bytes -= record.bytes();
            }
        }
        self.hold();
    }

    /// Number of records that are kept for each replica.
    pub fn counts(&self) -> BTreeMap<NodeId, usize> {
        self.by_node.iter().map(|(node, missed)| (*node, missed.len())).filter(|(_, count)| *count > 0).collect()
    }

    /// Number of hints that were forgotten for their age or their number.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

impl std::fmt::Debug for Hints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hints").field("bytes", &self.bytes).field("forgotten", &self.forgotten).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use vecino_model::{Fields, RawPayload, RecordValue, Version};

    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 16])
    }

    fn record(id: u64, bytes: usize) -> Record {
        let value = Some(RecordValue { vectors: Fields::new(), payload: RawPayload::from_bytes(vec![0; bytes]) });
        Record { id: id.into(), version: Version { time: id, node: node(9), seq: 0 }, value }
    }

    const ONE: CollectionId = CollectionId([1; 16]);
    const OTHER: CollectionId = CollectionId([2; 16]);

    #[test]
    fn what_a_replica_missed_is_delivered_in_order_one_collection_at_a_time() {
        let mut hints = Hints::default();
        let now = Time::default();
        assert!(hints.add(node(1), ONE, record(1, 10), now));
        assert!(!hints.add(node(1), ONE, record(2, 10), now));
        assert!(!hints.add(node(1), OTHER, record(3, 10), now));
        let (collection, first) = hints.delivery(node(1), now).unwrap();
        assert_eq!((collection, first.len()), (ONE, 2));
        assert_eq!(hints.delivery(node(1), now).unwrap().1, first, "kept until it is delivered");
        hints.delivered(node(1), &first);
        let (collection, rest) = hints.delivery(node(1), now).unwrap();
        assert_eq!((collection, rest[0].id.clone()), (OTHER, 3.into()));
        hints.delivered(node(1), &rest);
        assert_eq!((hints.delivery(node(1), now), hints.bytes), (None, 0));
    }

    #[test]
    fn hints_make_way_where_the_node_has_no_memory_for_them() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicUsize, Ordering};
        let held = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&held);
        let mut hints = Hints::default();
        hints.count_memory(Box::new(move |bytes| {
            let fits = bytes <= 1_000 || bytes <= counted.load(Ordering::SeqCst);
            if fits {
                counted.store(bytes, Ordering::SeqCst);
            }
            fits
        }));
        let now = Time::default();
        (0..10).for_each(|id| {
            hints.add(node(1), ONE, record(id, 300), now);
        });
        assert_eq!((hints.counts()[&node(1)], hints.forgotten()), (2, 8));
        assert_eq!(held.load(Ordering::SeqCst), hints.bytes);
        let (_, newest) = hints.delivery(node(1), now).unwrap();
        assert_eq!(newest[1].id, 9.into());
        hints.delivered(node(1), &newest);
        assert_eq!(held.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn hints_are_bounded_in_bytes_and_in_age() {
        let mut hints = Hints::default();
        let now = Time::default();
        for id in 0..300 {
            hints.add(node(1 + (id % 2) as u8), ONE, record(id, 1024 * 1024), now + Duration::from_secs(id));
        }
        assert!(hints.bytes <= HINT_BYTES_MAX && hints.forgotten() > 40, "{}", hints.forgotten());
        let (_, oldest) = hints.delivery(node(1), now).unwrap();
        assert_eq!(oldest[0].id, (2 * hints.forgotten().div_ceil(2)).into(), "the oldest go first");
        assert_eq!(hints.delivery(node(1), now + HINT_AGE_MAX + Duration::from_secs(300)), None);
    }
}
