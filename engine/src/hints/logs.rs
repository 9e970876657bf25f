//! What every other node has missed: the logs, and what the disk does not take.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, warn};
use vecino_model::{CollectionId, NodeId, Record};
use vecino_storage::{Disk, LogError};

use super::batch::HintBatch;
use super::held::{HELD_BYTES_MAX, Held, Hint};
use super::log::{HINTS, HintLog, encode, folder};

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

/// Why something could not be read, or removed.
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
    held: Held,
    forgotten: u64,
    calls: u64,
}

impl HintLogs {
    /// Opens what is there. What cannot be read is given up, with a word about it: it is no copy of its own.
    pub fn open(disk: Arc<dyn Disk>, limits: HintLimits) -> Self {
        let (logs, held) = (BTreeMap::new(), Held::default());
        let mut hints = Self { disk, limits, logs, held, forgotten: 0, calls: 0 };
        let names = hints.disk.list(HINTS).unwrap_or_default();
        for node in names.iter().filter_map(|name| name.parse::<NodeId>().ok()) {
            match HintLog::open(&hints.disk, node, limits.segment_bytes) {
                Ok(log) => drop(hints.logs.insert(node, log)),
                Err(reason) => {
                    warn!(%node, %reason, "what a node has missed cannot be opened");
                    hints.give_up(node, &reason);
                }
            }
            if hints.waiting_for(node) == 0 {
                hints.end(node);
            }
        }
        hints
    }

    /// Number of records that wait for each node.
    pub fn waiting(&self) -> BTreeMap<NodeId, u64> {
        let nodes = self.logs.keys().copied().chain(self.held.nodes());
        nodes.map(|node| (node, self.waiting_for(node))).filter(|(_, waiting)| *waiting > 0).collect()
    }

    /// Number of records that wait for a node.
    pub fn waiting_for(&self, node: NodeId) -> u64 {
        self.logs.get(&node).map_or(0, HintLog::waiting) + self.held.waiting(node)
    }

    /// Bytes that are held in memory, since the disk did not take them.
    pub fn held_bytes(&self) -> usize {
        self.held.bytes()
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
        let encoded = records.iter().map(|record| encode(collection, now_ms, record)).collect();
        if let Err(reason) = self.append(node, encoded) {
            if self.held.bytes() == 0 {
                warn!(%node, %reason, "what other nodes miss is held in memory until the disk takes it");
            }
            records.into_iter().for_each(|record| self.held.add(node, Hint { collection, since_ms: now_ms, record }));
            self.hold_at_most(HELD_BYTES_MAX);
        }
        self.waiting_for(node)
    }

    /// The oldest of what a node has missed, of one collection, as much as goes into one request; nothing where nothing
    /// waits. It is kept until [`Self::taken`] is told.
    ///
    /// # Errors
    /// Where it cannot be read. What is damaged is given up, so that what comes later is kept again.
    pub fn next(&mut self, node: NodeId, now_ms: u64) -> Result<Option<HintBatch>, HintError> {
        self.calls += 1;
        let age_max_ms = u64::try_from(self.limits.age_max.as_millis()).unwrap_or(u64::MAX);
        let since_ms_min = now_ms.saturating_sub(age_max_ms);
        if let Some(log) = self.logs.get_mut(&node) {
            let (next, forgotten) = log.next(since_ms_min);
            self.forgotten += forgotten;
            match next {
                Ok(Some(batch)) => return Ok(Some(batch)),
                Ok(None) => self.end(node),
                Err(source) => {
                    self.reopen_if_ended(node);
                    self.give_up(node, &source);
                    return Err(HintError { node, source });
                }
            }
        }
        self.forgotten += self.held.forget_before(node, since_ms_min);
        Ok(self.held.next(node))
    }

    /// A node has everything up to this number, or there is nothing to put it in; gives how many records wait for it.
    ///
    /// # Errors
    /// Where files cannot be removed. They are handed over again then, which changes nothing.
    pub fn taken(&mut self, node: NodeId, last_lsn: u64) -> Result<u64, HintError> {
        self.calls += 1;
        if Held::is_number(last_lsn) {
            self.held.taken(node, last_lsn);
        } else if let Some(log) = self.logs.get_mut(&node) {
            let removed = log.taken(last_lsn);
            if log.waiting() == 0 {
                self.end(node);
            } else if let Err(source) = removed {
                self.reopen_if_ended(node);
                return Err(HintError { node, source });
            }
        }
        Ok(self.waiting_for(node))
    }

    /// Makes what was kept durable, and puts on the disk what is held in memory, if it takes it now.
    pub fn flush(&mut self) {
        for node in self.held.nodes().collect::<Vec<_>>() {
            let held = self.held.take(node);
            let encode = |hint: &Hint| encode(hint.collection, hint.since_ms, &hint.record);
            if self.append(node, held.iter().map(encode).collect()).is_err() {
                held.into_iter().for_each(|hint| self.held.add(node, hint));
            }
        }
        let failed = self.logs.iter_mut().filter_map(|(node, log)| Some((*node, log.log.flush().err()?)));
        for (node, reason) in failed.collect::<Vec<_>>() {
            warn!(%node, %reason, "what a node has missed may be lost in a power cut");
            self.reopen_if_ended(node);
        }
    }

    /// Forgets of what is held in memory the oldest, until it takes no more bytes than this.
    pub fn hold_at_most(&mut self, bytes: usize) {
        self.forgotten += self.held.hold_at_most(bytes);
    }

    fn append(&mut self, node: NodeId, encoded: Vec<Vec<u8>>) -> Result<(), LogError> {
        let log = match self.logs.entry(node) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => match HintLog::open(&self.disk, node, self.limits.segment_bytes) {
                Ok(log) => place.insert(log),
                Err(reason) => {
                    self.give_up(node, &reason);
                    return Err(reason);
                }
            },
        };
        if let Err(error) = log.append(&encoded) {
            if log.waiting() == 0 {
                self.end(node);
            } else {
                self.reopen_if_ended(node);
            }
            return Err(error);
        }
        while self.bytes() > self.limits.bytes_max && self.forget_oldest() {}
        Ok(())
    }

    /// Opens a log anew that a failed flush has ended.
    fn reopen_if_ended(&mut self, node: NodeId) {
        if !self.logs.get(&node).is_some_and(|log| log.log.is_poisoned()) {
            return;
        }
        let Some(ended) = self.logs.remove(&node) else { return };
        match ended.reopen(&self.disk, self.limits.segment_bytes) {
            Ok(log) => drop(self.logs.insert(node, log)),
            Err(reason) => {
                warn!(%node, %reason, "what a node has missed cannot be opened again");
                self.give_up(node, &reason);
            }
        }
    }

    /// Forgets the oldest segment of the log that takes most; where it is the only one, all of it.
    fn forget_oldest(&mut self) -> bool {
        let Some((node, log)) = self.logs.iter_mut().max_by_key(|(_, log)| log.log.bytes()) else { return false };
        let node = *node;
        match log.forget_segment() {
            Some((forgotten, removed)) => {
                self.forgotten += forgotten;
                if let Err(reason) = removed {
                    warn!(%node, %reason, "hints that were forgotten could not be removed");
                    self.reopen_if_ended(node);
                    return false;
                }
            }
            None => {
                self.forgotten += log.waiting();
                self.end(node);
            }
        }
        true
    }

    /// Nothing waits for a node any more in its log.
    fn end(&mut self, node: NodeId) {
        if self.logs.remove(&node).is_some()
            && let Err(reason) = self.disk.remove_dir_all(&folder(node))
        {
            warn!(%node, %reason, "hints that were handed over could not be removed; they are handed over again");
        }
    }

    /// The log of a node cannot be read, or opened. Where it is damaged, it goes.
    fn give_up(&mut self, node: NodeId, reason: &LogError) {
        if !matches!(
            reason,
            LogError::Corrupt { .. }
                | LogError::WrongCollection { .. }
                | LogError::Missing { .. }
                | LogError::Behind { .. }
        ) {
            return;
        }
        self.forgotten += self.logs.remove(&node).map_or(1, |log| log.waiting());
        error!(%node, %reason, "what a node has missed is damaged and given up: it is behind until it is repaired");
        if let Err(reason) = self.disk.remove_dir_all(&folder(node)) {
            warn!(%node, %reason, "damaged hints could not be removed");
        }
    }
}

impl std::fmt::Debug for HintLogs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (waiting, forgotten) = (self.waiting(), self.forgotten);
        f.debug_struct("HintLogs").field("waiting", &waiting).field("forgotten", &forgotten).finish_non_exhaustive()
    }
}
