//! What is handed over at a time.

use vecino_model::{CollectionId, Record};

/// Most records of one batch.
pub(super) const BATCH_RECORDS_MAX: usize = 1_000;
/// Bytes after which a batch is not made larger.
const BATCH_BYTES: usize = 1024 * 1024;

/// Records of one collection that a node missed, the oldest first.
#[derive(Clone, Debug, PartialEq)]
pub struct HintBatch {
    /// The collection.
    pub collection: CollectionId,
    /// The records.
    pub records: Vec<Record>,
    /// What [`HintLogs::taken`](super::HintLogs::taken) is told once the node has them.
    pub last_lsn: u64,
}

/// A batch while it is put together.
#[derive(Default)]
pub(super) struct Gathering {
    batch: Option<HintBatch>,
    bytes: usize,
}

impl Gathering {
    /// Whether nothing is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.batch.is_none()
    }

    /// Whether a record of this collection still goes into the batch.
    pub(super) fn takes(&self, collection: CollectionId) -> bool {
        self.batch.as_ref().is_none_or(|batch| {
            batch.collection == collection && batch.records.len() < BATCH_RECORDS_MAX && self.bytes <= BATCH_BYTES
        })
    }

    /// Adds a record that it [takes](Self::takes).
    pub(super) fn add(&mut self, collection: CollectionId, record: Record, lsn: u64) {
        self.bytes += record.bytes();
        let batch = self.batch.get_or_insert_with(|| HintBatch { collection, records: Vec::new(), last_lsn: lsn });
        batch.records.push(record);
        batch.last_lsn = lsn;
    }

    /// The batch, if there is anything in it.
    pub(super) fn finish(self) -> Option<HintBatch> {
        self.batch
    }
}
