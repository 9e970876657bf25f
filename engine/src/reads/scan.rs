//! Reading points of one collection on one node, by their ids and in ring order.

use vecino_model::{Parts, PointId, Record, Version};

use crate::core::Core;
use crate::key::{Entry, Key};

/// Bytes of records after which a page of a scan ends.
pub(crate) const SCAN_BYTES: usize = 4 * 1024 * 1024;

/// A page of records in ring order.
pub struct Page {
    /// The records, tombstones included.
    pub records: Vec<Record>,
    /// Whether nothing comes after them.
    pub end: bool,
}

impl Core {
    /// The newest versions of points, tombstones included.
    pub(crate) fn versions(&self, ids: &[PointId]) -> Vec<Option<Version>> {
        let tables = self.tables();
        ids.iter().map(|id| tables.version(&self.key(id))).collect()
    }

    /// The newest records of points with these parts of them, tombstones included.
    pub(crate) fn read_parts(&self, ids: &[PointId], parts: Parts) -> Vec<Option<Record>> {
        let _reading = self.reading();
        let found: Vec<_> = {
            let tables = self.tables();
            ids.iter().map(|id| tables.entry(&self.key(id)).cloned()).collect()
        };
        let record = |(id, entry): (&PointId, Option<Entry>)| entry.map(|entry| self.record(id.clone(), entry, parts));
        ids.iter().zip(found).map(record).collect()
    }

    /// Up to `limit` records after a key with these parts of them, in ring order; fewer where they are large.
    pub(crate) fn scan_parts(&self, after: Option<&Key>, limit: usize, parts: Parts) -> Page {
        let _reading = self.reading();
        let entries: Vec<_> = {
            let tables = self.tables();
            tables.after(after, limit).map(|(key, entry)| (key.id, entry.clone())).collect()
        };
        let found = entries.len();
        let (mut records, mut bytes) = (Vec::with_capacity(found), 0);
        for (id, entry) in entries {
            if bytes >= SCAN_BYTES {
                break;
            }
            let record = self.record(id, entry, parts);
            bytes += record.bytes();
            records.push(record);
        }
        let end = found < limit && records.len() == found;
        Page { records, end }
    }
}
