//! What other replicas have missed, on disk: a log for each of them.
//!
//! A node that is asked to write keeps here what a replica did not take, and hands it over when the replica takes it again.
//! It is a help and no promise: it never counts for a level. So it is flushed once a second and not before anything is
//! answered, and it is bounded: in bytes over all replicas, and in age. Beyond that the oldest are forgotten, a segment at
//! a time. What the disk does not take, since it is full say, is held in memory until it does, within a bound of its own:
//! a full disk refuses puts, too, and what this node's own replica has missed for that reason is to reach it. Drawn in
//! `docs/disk.md`.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, warn};
use vecino_model::{CollectionId, NodeId, Record};
use vecino_storage::{Disk, Log, LogError, LogOptions, SyncPolicy};

use crate::record;

/// The folder of the logs, each in a folder with the id of its node.
pub const HINTS: &str = "hints";
/// Most records of one batch.
const BATCH_RECORDS_MAX: usize = 1_000;
/// Bytes after which a batch is not made larger.
const BATCH_BYTES: usize = 1024 * 1024;
/// What stands before a record: its collection, and when it was missed.
const HEAD_BYTES: usize = 16 + 8;
/// Most bytes that are held in memory while the disk takes none.
const HELD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What is held in memory has numbers from here on; no log gets so far.
const HELD_FROM: u64 = 1 << 63;

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct HintLimits {
    /// Most bytes on disk, over all nodes.
    pub bytes_max: u64,
    /// What was missed longer ago is forgotten.
    pub age_max: Duration,
    /// Bytes after which a log goes on in another file; so much is forgotten at a time.
    pub segment_bytes: u64,
}

impl Default for HintLimits {
    fn default() -> Self {
        Self { bytes_max: 1 << 30, age_max: Duration::from_secs(3 * 3600), segment_bytes: 4 << 20 }
    }
}

/// Records of one collection that a node missed, the oldest first.
#[derive(Clone, Debug, PartialEq)]
pub struct HintBatch {
    /// The collection.
    pub collection: CollectionId,
    /// The records.
    pub records: Vec<Record>,
    /// What [`HintLogs::taken`] is told once the node has them.
    pub last_lsn: u64,
}

/// Why something could not be kept, or read.
#[derive(Debug, thiserror::Error)]
#[error("what node {node} has missed: {source}")]
pub struct HintError {
    node: NodeId,
    #[source]
    source: LogError,
}

/// What every other node has missed.
pub struct HintLogs {
    disk: Arc<dyn Disk>,
    limits: HintLimits,
    logs: BTreeMap<NodeId, HintLog>,
    /// What the disk did not take.
    held: BTreeMap<NodeId, VecDeque<Held>>,
    held_bytes: usize,
    next_held: u64,
    forgotten: u64,
    calls: u64,
}

/// What one node has missed, in memory.
struct Held {
    number: u64,
    collection: CollectionId,
    since_ms: u64,
    record: Record,
}

/// What one node has missed.
struct HintLog {
    log: Log,
    /// Everything before it was taken, or forgotten.
    next: u64,
}

impl HintLog {
    fn open(disk: &Arc<dyn Disk>, node: NodeId, segment_bytes: u64) -> Result<Self, LogError> {
        let options = LogOptions { segment_bytes, sync: SyncPolicy::Never };
        let (log, recovery) = Log::open(Arc::clone(disk), &folder(node), *node.as_bytes(), options)?;
        Ok(Self { log, next: recovery.first_lsn })
    }

    /// Number of records that wait.
    fn waiting(&self) -> u64 {
        self.log.next_lsn() - self.next
    }
}

fn folder(node: NodeId) -> String {
    format!("{HINTS}/{node}")
}

impl HintLogs {
    /// Opens what is there. What cannot be read is given up, with a word about it: it is no copy of its own.
    pub fn open(disk: Arc<dyn Disk>, limits: HintLimits) -> Self {
        let mut hints = Self {
            disk,
            limits,
            logs: BTreeMap::new(),
            held: BTreeMap::new(),
            held_bytes: 0,
            next_held: HELD_FROM,
            forgotten: 0,
            calls: 0,
        };
        let names = hints.disk.list(HINTS).unwrap_or_default();
        for node in names.iter().filter_map(|name| name.parse::<NodeId>().ok()) {
            match HintLog::open(&hints.disk, node, limits.segment_bytes) {
                Ok(log) if log.waiting() > 0 => drop(hints.logs.insert(node, log)),
                Ok(log) => hints.close(node, log),
                Err(source) => hints.give_up(node, &source),
            }
        }
        hints
    }

    /// Number of records that wait for each node.
    pub fn waiting(&self) -> BTreeMap<NodeId, u64> {
        let nodes = self.logs.keys().chain(self.held.keys());
        nodes.map(|node| (*node, self.waiting_for(*node))).filter(|(_, waiting)| *waiting > 0).collect()
    }

    /// Number of records that wait for a node.
    pub fn waiting_for(&self, node: NodeId) -> u64 {
        let held = self.held.get(&node).map_or(0, VecDeque::len) as u64;
        self.logs.get(&node).map_or(0, HintLog::waiting) + held
    }

    /// Bytes that are held in memory, since the disk did not take them.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Number of calls of [`Self::keep`], [`Self::next`] and [`Self::taken`] so far: of two answers, the one with the
    /// greater number is the later one, whichever comes first.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// Number of records that were forgotten, for their age, for want of room, or for damage.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.logs.values().map(|log| log.log.bytes()).sum()
    }

    /// Keeps what a node has missed; gives how many records wait for it now.
    pub fn keep(&mut self, node: NodeId, collection: CollectionId, records: Vec<Record>, now_ms: u64) -> u64 {
        self.calls += 1;
        if let Err(reason) = self.append(node, records.iter().map(|record| (collection, now_ms, record))) {
            if self.held_bytes == 0 {
                warn!(%node, %reason, "what other nodes miss is held in memory until the disk takes it");
            }
            for record in records {
                self.held_bytes += record.bytes();
                let held = Held { number: self.next_held, collection, since_ms: now_ms, record };
                self.held.entry(node).or_default().push_back(held);
                self.next_held += 1;
            }
            self.hold_at_most(HELD_BYTES_MAX);
        }
        self.waiting_for(node)
    }

    fn append<'a>(
        &mut self,
        node: NodeId,
        hints: impl Iterator<Item = (CollectionId, u64, &'a Record)>,
    ) -> Result<(), LogError> {
        let encoded: Vec<Vec<u8>> =
            hints.map(|(collection, since, record)| encode(collection, since, record)).collect();
        let slices: Vec<&[u8]> = encoded.iter().map(Vec::as_slice).collect();
        let log = self.log(node)?;
        if let Err(error) = log.log.append(&slices) {
            let is_empty = log.waiting() == 0;
            self.look_after(node);
            if is_empty {
                self.end(node);
            }
            return Err(error);
        }
        while self.bytes() > self.limits.bytes_max && self.forget_oldest() {}
        Ok(())
    }

    /// Forgets of what is held in memory the oldest, until it takes no more bytes than this.
    pub fn hold_at_most(&mut self, bytes: usize) {
        while self.held_bytes > bytes {
            let oldest = self.held.iter().filter_map(|(node, held)| Some((held.front()?.number, *node))).min();
            let Some((_, node)) = oldest else { return };
            self.drop_held(node, 1);
            self.forgotten += 1;
        }
    }

    /// Lets go of the first of what is held for a node.
    fn drop_held(&mut self, node: NodeId, count: usize) {
        let Some(held) = self.held.get_mut(&node) else { return };
        self.held_bytes -= held.drain(..count).map(|held| held.record.bytes()).sum::<usize>();
        if held.is_empty() {
            self.held.remove(&node);
        }
    }

    /// The oldest of what a node has missed, of one collection, as much as goes into one request; nothing where nothing
    /// waits. It is kept until [`Self::taken`] is told.
    ///
    /// # Errors
    /// Where it cannot be read. What is damaged is given up, so that what comes later is kept again.
    pub fn next(&mut self, node: NodeId, now_ms: u64) -> Result<Option<HintBatch>, HintError> {
        self.calls += 1;
        let age_max_ms = u64::try_from(self.limits.age_max.as_millis()).unwrap_or(u64::MAX);
        let Some(hints) = self.logs.get_mut(&node) else { return Ok(self.next_held(node, now_ms, age_max_ms)) };
        let mut batch: Option<HintBatch> = None;
        let (mut bytes, mut passed_over, mut damaged) = (0, hints.next, 0);
        let read = hints.log.read(hints.next, &mut |lsn, stored| {
            let (of, record) = match decode(stored) {
                Some((of, since_ms, record)) if now_ms.saturating_sub(since_ms) <= age_max_ms => (of, record),
                unusable => {
                    damaged += u64::from(unusable.is_none());
                    if batch.is_none() {
                        passed_over = lsn + 1;
                    }
                    return ControlFlow::Continue(());
                }
            };
            let batch = batch.get_or_insert_with(|| HintBatch { collection: of, records: Vec::new(), last_lsn: lsn });
            if batch.collection != of || batch.records.len() == BATCH_RECORDS_MAX || bytes > BATCH_BYTES {
                return ControlFlow::Break(());
            }
            bytes += record.bytes();
            batch.records.push(record);
            batch.last_lsn = lsn;
            ControlFlow::Continue(())
        });
        self.forgotten += passed_over - hints.next;
        hints.next = passed_over;
        if damaged > 0 {
            error!(%node, records = damaged, "what a node has missed cannot be read: it is behind until it is repaired");
        }
        if let Err(source) = read {
            self.look_after(node);
            if !matches!(source, LogError::Io { .. } | LogError::Poisoned { .. }) {
                self.give_up(node, &source);
            }
            return Err(HintError { node, source });
        }
        if batch.is_none() {
            self.end(node);
            return Ok(self.next_held(node, now_ms, age_max_ms));
        }
        Ok(batch)
    }

    /// The oldest of what is held in memory for a node.
    fn next_held(&mut self, node: NodeId, now_ms: u64, age_max_ms: u64) -> Option<HintBatch> {
        let is_too_old = |held: &&Held| now_ms.saturating_sub(held.since_ms) > age_max_ms;
        let too_old = self.held.get(&node)?.iter().take_while(is_too_old).count();
        self.drop_held(node, too_old);
        self.forgotten += too_old as u64;
        let held = self.held.get(&node)?;
        let collection = held.front()?.collection;
        let (mut records, mut bytes, mut last_lsn) = (Vec::new(), 0, 0);
        for held in held.iter().take(BATCH_RECORDS_MAX).take_while(|held| held.collection == collection) {
            if bytes > BATCH_BYTES {
                break;
            }
            bytes += held.record.bytes();
            records.push(held.record.clone());
            last_lsn = held.number;
        }
        Some(HintBatch { collection, records, last_lsn })
    }

    /// A node has everything up to this number, or there is nothing to put it in; gives how many records wait for it.
    ///
    /// # Errors
    /// Where files cannot be removed. They are handed over again then, which changes nothing.
    pub fn taken(&mut self, node: NodeId, last_lsn: u64) -> Result<u64, HintError> {
        self.calls += 1;
        if last_lsn >= HELD_FROM {
            let taken = |held: &VecDeque<Held>| held.iter().take_while(|held| held.number <= last_lsn).count();
            let taken = self.held.get(&node).map_or(0, taken);
            self.drop_held(node, taken);
            return Ok(self.waiting_for(node));
        }
        let Some(hints) = self.logs.get_mut(&node) else { return Ok(self.waiting_for(node)) };
        hints.next = hints.next.max((last_lsn + 1).min(hints.log.next_lsn()));
        if hints.waiting() == 0 {
            self.end(node);
        } else if let Err(source) = hints.log.truncate_before(hints.next) {
            self.look_after(node);
            return Err(HintError { node, source });
        }
        Ok(self.waiting_for(node))
    }

    /// Makes what was kept durable, and puts on the disk what was held in memory, if it takes it now.
    pub fn flush(&mut self) {
        for node in self.held.keys().copied().collect::<Vec<_>>() {
            let Some(held) = self.held.remove(&node) else { continue };
            let hints = held.iter().map(|held| (held.collection, held.since_ms, &held.record));
            if self.append(node, hints).is_ok() {
                self.held_bytes -= held.iter().map(|held| held.record.bytes()).sum::<usize>();
            } else {
                self.held.insert(node, held);
            }
        }
        let failed = self.logs.iter_mut().filter_map(|(node, hints)| Some((*node, hints.log.flush().err()?)));
        for (node, source) in failed.collect::<Vec<_>>() {
            warn!(%node, reason = %source, "what a node has missed may be lost in a power cut");
            self.look_after(node);
        }
    }

    /// The log of a node, made where there is none.
    fn log(&mut self, node: NodeId) -> Result<&mut HintLog, LogError> {
        use std::collections::btree_map::Entry;
        match self.logs.entry(node) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(HintLog::open(&self.disk, node, self.limits.segment_bytes)?)),
        }
    }

    /// Opens a log anew that a failed flush has ended.
    fn look_after(&mut self, node: NodeId) {
        let Some(ended) = self.logs.remove(&node) else { return };
        if !ended.log.is_poisoned() {
            self.logs.insert(node, ended);
            return;
        }
        let next = ended.next;
        drop(ended);
        match HintLog::open(&self.disk, node, self.limits.segment_bytes) {
            Ok(log) => {
                let next = next.clamp(log.next, log.log.next_lsn());
                self.logs.insert(node, HintLog { next, ..log });
            }
            Err(source) => self.give_up(node, &source),
        }
    }

    /// Forgets the oldest segment of the node whose segments take most; where it is the only one, all of it.
    fn forget_oldest(&mut self) -> bool {
        let Some((node, hints)) = self.logs.iter_mut().max_by_key(|(_, hints)| hints.log.bytes()) else {
            return false;
        };
        let (node, before) = (*node, hints.waiting());
        match hints.log.second_segment_lsn() {
            Some(second) => {
                hints.next = hints.next.max(second);
                self.forgotten += before - hints.waiting();
                if let Err(reason) = hints.log.truncate_before(second) {
                    warn!(%node, %reason, "hints that were forgotten could not be removed");
                    self.look_after(node);
                    return false;
                }
            }
            None => {
                self.forgotten += before;
                self.end(node);
            }
        }
        true
    }

    /// Nothing waits for a node any more.
    fn end(&mut self, node: NodeId) {
        if let Some(log) = self.logs.remove(&node) {
            self.close(node, log);
        }
    }

    fn close(&self, node: NodeId, log: HintLog) {
        drop(log);
        if let Err(reason) = self.disk.remove_dir_all(&folder(node)) {
            warn!(%node, %reason, "hints that were handed over could not be removed; they are handed over again");
        }
    }

    /// What is there for a node cannot be read.
    fn give_up(&mut self, node: NodeId, reason: &LogError) {
        if matches!(reason, LogError::NewerFormat { .. } | LogError::Io { .. } | LogError::Full { .. }) {
            warn!(%node, %reason, "what a node has missed cannot be opened now");
            return;
        }
        self.forgotten += self.logs.get(&node).map_or(1, HintLog::waiting);
        error!(%node, %reason, "what a node has missed is damaged and given up: it is behind until it is repaired");
        self.end(node);
        // Where it could not be opened it is not among the logs.
        let _ = self.disk.remove_dir_all(&folder(node));
    }
}

impl std::fmt::Debug for HintLogs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let waiting = self.waiting();
        f.debug_struct("HintLogs")
            .field("waiting", &waiting)
            .field("forgotten", &self.forgotten)
            .finish_non_exhaustive()
    }
}

fn encode(collection: CollectionId, since_ms: u64, record: &Record) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + record::encoded_bytes(record));
    bytes.extend_from_slice(&collection.0);
    bytes.extend_from_slice(&since_ms.to_le_bytes());
    record::encode_behind(record, &mut bytes);
    bytes
}

fn decode(bytes: &[u8]) -> Option<(CollectionId, u64, Record)> {
    let (collection, rest) = bytes.split_first_chunk::<16>()?;
    let (since_ms, record) = rest.split_first_chunk::<8>()?;
    let record = record::decode(record).ok()?;
    Some((CollectionId(*collection), u64::from_le_bytes(*since_ms), record))
}

#[cfg(test)]
mod tests {
    use vecino_model::{Fields, RawPayload, RecordValue, Version};
    use vecino_storage::MemDisk;

    use super::*;

    const ONE: CollectionId = CollectionId([1; 16]);
    const OTHER: CollectionId = CollectionId([2; 16]);
    const HOUR_MS: u64 = 3_600_000;

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 16])
    }

    fn record(id: u64, bytes: usize) -> Record {
        let value = Some(RecordValue { vectors: Fields::new(), payload: RawPayload::from_bytes(vec![0; bytes]) });
        Record { id: id.into(), version: Version { time: id, node: node(9), seq: 0 }, value }
    }

    fn open(disk: &MemDisk) -> HintLogs {
        HintLogs::open(Arc::new(disk.clone()), HintLimits::default())
    }

    /// Takes everything that waits for a node; gives the numbers of the points.
    fn drain(hints: &mut HintLogs, of: NodeId, now_ms: u64) -> Vec<u64> {
        let mut ids = Vec::new();
        while let Some(batch) = hints.next(of, now_ms).unwrap() {
            ids.extend(batch.records.iter().map(|record| record.version.time));
            hints.taken(of, batch.last_lsn).unwrap();
        }
        ids
    }

    #[test]
    fn what_a_node_missed_is_handed_over_in_order_one_collection_at_a_time() {
        let mut hints = open(&MemDisk::new());
        assert_eq!(hints.keep(node(1), ONE, vec![record(1, 10), record(2, 10)], 0), 2);
        assert_eq!(hints.keep(node(1), OTHER, vec![record(3, 10)], 0), 3);
        assert_eq!(hints.keep(node(2), ONE, vec![record(4, 10)], 0), 1);
        let first = hints.next(node(1), 0).unwrap().unwrap();
        assert_eq!((first.collection, &first.records[..]), (ONE, &[record(1, 10), record(2, 10)][..]));
        assert_eq!(hints.next(node(1), 0).unwrap().unwrap(), first, "kept until it is taken");
        assert_eq!(hints.taken(node(1), first.last_lsn).unwrap(), 1);
        let rest = hints.next(node(1), 0).unwrap().unwrap();
        assert_eq!((rest.collection, &rest.records[..]), (OTHER, &[record(3, 10)][..]));
        assert_eq!(hints.taken(node(1), rest.last_lsn).unwrap(), 0);
        assert_eq!(hints.next(node(1), 0).unwrap(), None);
        assert_eq!(hints.waiting(), BTreeMap::from([(node(2), 1)]));
        assert_eq!(hints.forgotten(), 0);
    }

    #[test]
    fn hints_outlive_a_kill_and_what_was_flushed_a_power_cut() {
        let disk = MemDisk::new();
        let mut hints = open(&disk);
        hints.keep(node(1), ONE, vec![record(1, 10), record(2, 10)], 0);
        drop(hints);
        let mut hints = open(&disk);
        assert_eq!(hints.waiting(), BTreeMap::from([(node(1), 2)]), "a process that is killed has lost nothing");
        hints.keep(node(1), ONE, vec![record(3, 10)], 0);
        hints.flush();
        hints.keep(node(1), ONE, vec![record(4, 10)], 0);
        drop(hints);
        for seed in 0..20 {
            let after = disk.fork();
            after.crash(seed);
            let ids = drain(&mut open(&after), node(1), 0);
            assert!(ids == [1, 2, 3] || ids == [1, 2, 3, 4], "seed {seed}: {ids:?}");
            assert_eq!(after.list(HINTS).unwrap(), Vec::<String>::new(), "nothing is left of what was taken");
        }
    }

    #[test]
    fn what_was_taken_is_not_handed_over_again_but_for_a_restart() {
        let disk = MemDisk::new();
        let limits = HintLimits { segment_bytes: 2_000, ..HintLimits::default() };
        let mut hints = HintLogs::open(Arc::new(disk.clone()), limits);
        for id in 0..2_500 {
            hints.keep(node(1), ONE, vec![record(id, 10)], 0);
        }
        let first = hints.next(node(1), 0).unwrap().unwrap();
        assert_eq!(first.records.len(), BATCH_RECORDS_MAX);
        assert_eq!(hints.taken(node(1), first.last_lsn).unwrap(), 1_500);
        drop(hints);
        let again = drain(&mut HintLogs::open(Arc::new(disk), limits), node(1), 0);
        assert!((1..=1_000).contains(&again[0]), "whole files are gone: {}", again[0]);
        assert_eq!(again, (again[0]..2_500).collect::<Vec<_>>());
    }

    #[test]
    fn hints_are_bounded_in_bytes_and_in_age() {
        let limits = HintLimits { bytes_max: 64_000, age_max: Duration::from_secs(3 * 3600), segment_bytes: 4_000 };
        let mut hints = HintLogs::open(Arc::new(MemDisk::new()), limits);
        for id in 0..300 {
            hints.keep(node(1 + (id % 2) as u8), ONE, vec![record(id, 1_000)], id * HOUR_MS / 100);
        }
        assert!(hints.bytes() <= limits.bytes_max, "{}", hints.bytes());
        let waiting: u64 = hints.waiting().values().sum();
        assert_eq!(waiting + hints.forgotten(), 300);
        assert!(waiting > 40, "{waiting} of 64 that would fit");
        let ids = drain(&mut hints, node(2), 3 * HOUR_MS);
        assert_eq!(*ids.last().unwrap(), 299, "the newest stay");
        assert!(ids.windows(2).all(|pair| pair[1] == pair[0] + 2), "{ids:?}");
        let before = hints.forgotten();
        assert_eq!(hints.next(node(1), 20 * HOUR_MS).unwrap(), None, "all of them are too old");
        assert_eq!(hints.forgotten(), 300 - ids.len() as u64, "{before} before");
        assert!(hints.waiting().is_empty());
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_held_in_memory_within_a_bound() {
        use vecino_storage::{Fault, FaultyDisk};
        let mem = MemDisk::new();
        let disk = FaultyDisk::new(Arc::new(mem.clone()));
        let mut hints = HintLogs::open(Arc::new(disk.clone()), HintLimits::default());
        hints.keep(node(1), ONE, vec![record(1, 10)], 0);
        disk.set(Fault::Room(0));
        assert_eq!(hints.keep(node(1), ONE, vec![record(2, 1 << 20)], 0), 2);
        assert_eq!(hints.keep(node(2), ONE, vec![record(3, 10)], 0), 1);
        hints.keep(node(2), OTHER, vec![record(4, 10)], 0);
        hints.flush();
        assert_eq!(hints.waiting(), BTreeMap::from([(node(1), 2), (node(2), 2)]));
        assert_eq!(drain(&mut open(&mem.fork()), node(1), 0), [1], "what is on the disk");
        assert_eq!(drain(&mut hints, node(2), 0), [3, 4], "from memory alone");
        hints.keep(node(2), ONE, vec![record(5, 10)], 0);
        disk.heal();
        hints.flush();
        assert_eq!(hints.held_bytes(), 0);
        assert_eq!(
            HintLogs::open(Arc::new(mem), HintLimits::default()).waiting(),
            hints.waiting(),
            "it is on the disk"
        );
        assert_eq!((drain(&mut hints, node(1), 0), drain(&mut hints, node(2), 0)), (vec![1, 2], vec![5]));
        disk.set(Fault::Room(0));
        for id in 0..40 {
            hints.keep(node(1 + (id % 2) as u8), ONE, vec![record(id, 1 << 20)], id);
        }
        assert!(hints.held_bytes() <= HELD_BYTES_MAX && hints.forgotten() > 20, "{}", hints.forgotten());
        let age_ms = HintLimits::default().age_max.as_millis() as u64;
        assert_eq!(drain(&mut hints, node(2), age_ms + 38), [39], "the oldest went first, and others were too old");
        hints.hold_at_most(0);
        assert!(hints.waiting().is_empty());
    }

    #[test]
    fn damage_is_given_up_and_what_comes_later_is_kept() {
        let disk = MemDisk::new();
        let mut hints = open(&disk);
        for id in 0..20 {
            hints.keep(node(1), ONE, vec![record(id, 100)], 0);
        }
        hints.flush();
        drop(hints);
        let path = format!("{}/{}", folder(node(1)), disk.list(&folder(node(1))).unwrap()[0]);
        disk.flip(&path, 500, 4);
        let mut hints = open(&disk);
        while hints.next(node(1), 0).is_err() {}
        hints.keep(node(1), ONE, vec![record(30, 100)], 0);
        assert_eq!(drain(&mut hints, node(1), 0).last(), Some(&30));
        assert!(hints.forgotten() > 0);
    }
}
