//! What one node has missed, in a log of its own. Drawn in `docs/disk.md`.

use std::ops::ControlFlow;
use std::sync::Arc;

use tracing::error;
use vecino_model::{CollectionId, NodeId, Record};
use vecino_storage::{Disk, Log, LogError, LogOptions, SyncPolicy};

use super::batch::{Gathering, HintBatch};
use crate::record;

/// The folder of the logs, each in a folder with the id of its node.
pub const HINTS: &str = "hints";
/// What stands before a record: its collection, and when it was missed.
const HEAD_BYTES: usize = 16 + 8;

/// The folder of what a node has missed.
pub(super) fn folder(node: NodeId) -> String {
    format!("{HINTS}/{node}")
}

/// What one node has missed.
pub(super) struct HintLog {
    pub(super) log: Log,
    node: NodeId,
    /// Everything before it was taken, or forgotten.
    next: u64,
}

impl HintLog {
    pub(super) fn open(disk: &Arc<dyn Disk>, node: NodeId, segment_bytes: u64) -> Result<Self, LogError> {
        let options = LogOptions { segment_bytes, sync: SyncPolicy::Never };
        let (log, recovery) = Log::open(Arc::clone(disk), &folder(node), *node.as_bytes(), options)?;
        Ok(Self { log, node, next: recovery.first_lsn })
    }

    /// The same, opened anew after a failed flush.
    pub(super) fn reopen(self, disk: &Arc<dyn Disk>, segment_bytes: u64) -> Result<Self, LogError> {
        let Self { log, node, next } = self;
        drop(log);
        let opened = Self::open(disk, node, segment_bytes)?;
        let next = next.clamp(opened.next, opened.log.next_lsn());
        Ok(Self { next, ..opened })
    }

    /// Number of records that wait.
    pub(super) fn waiting(&self) -> u64 {
        self.log.next_lsn() - self.next
    }

    /// Keeps records, each as [`encode`] gives it.
    pub(super) fn append(&mut self, encoded: &[Vec<u8>]) -> Result<(), LogError> {
        let slices: Vec<&[u8]> = encoded.iter().map(Vec::as_slice).collect();
        self.log.append(&slices).map(drop)
    }

    /// The oldest of what waits, of one collection, as much as goes into one request. What was missed before this time is
    /// passed over, and so is what cannot be read; gives how many records that were.
    pub(super) fn next(&mut self, since_ms_min: u64) -> (Result<Option<HintBatch>, LogError>, u64) {
        let mut batch = Gathering::default();
        let (mut passed_over, mut damaged) = (self.next, 0);
        let read = self.log.read(self.next, &mut |lsn, stored| match decode(stored) {
            Some((collection, since_ms, record)) if since_ms >= since_ms_min => {
                if !batch.takes(collection) {
                    return ControlFlow::Break(());
                }
                batch.add(collection, record, lsn);
                ControlFlow::Continue(())
            }
            unusable => {
                damaged += u64::from(unusable.is_none());
                if batch.is_empty() {
                    passed_over = lsn + 1;
                }
                ControlFlow::Continue(())
            }
        });
        if damaged > 0 {
            let node = self.node;
            error!(%node, records = damaged, "what a node has missed cannot be read: it is behind until it is repaired");
        }
        let forgotten = passed_over - self.next;
        self.next = passed_over;
        (read.map(|()| batch.finish()), forgotten)
    }

    /// The node has everything up to this number.
    pub(super) fn taken(&mut self, last_lsn: u64) -> Result<(), LogError> {
        self.next = self.next.max((last_lsn + 1).min(self.log.next_lsn()));
        self.log.truncate_before(self.next).map(drop)
    }

    /// Forgets the oldest segment, if another follows it; gives how many records that were.
    pub(super) fn forget_segment(&mut self) -> Option<(u64, Result<(), LogError>)> {
        let second = self.log.second_segment_lsn()?;
        let before = self.waiting();
        self.next = self.next.max(second);
        Some((before - self.waiting(), self.log.truncate_before(second).map(drop)))
    }
}

/// A record as it stands in the log.
pub(super) fn encode(collection: CollectionId, since_ms: u64, record: &Record) -> Vec<u8> {
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
