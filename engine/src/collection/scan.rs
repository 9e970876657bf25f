//! Reading points of one collection on one node, by their ids and in ring order.

use vecino_model::{Parts, PointId, Record, Version};

use crate::collection::handle::Collection;
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

impl Collection {
    /// The newest versions of points, tombstones included.
    pub fn versions(&self, ids: &[PointId]) -> Vec<Option<Version>> {
        let tables = self.core.tables();
        ids.iter().map(|id| tables.version(&self.core.key(id))).collect()
    }

    /// The newest records of points, tombstones included.
    pub fn read(&self, ids: &[PointId]) -> Vec<Option<Record>> {
        self.read_parts(ids, Parts::ALL)
    }

    /// The newest records of points with these parts of them, tombstones included.
    pub fn read_parts(&self, ids: &[PointId], parts: Parts) -> Vec<Option<Record>> {
        let _reading = self.core.reading();
        let found: Vec<_> = {
            let tables = self.core.tables();
            ids.iter().map(|id| tables.entry(&self.core.key(id)).cloned()).collect()
        };
        let record =
            |(id, entry): (&PointId, Option<Entry>)| entry.map(|entry| self.core.record(id.clone(), entry, parts));
        ids.iter().zip(found).map(record).collect()
    }

    /// Up to `limit` records after a key, in ring order; fewer where they are large.
    pub fn scan(&self, after: Option<&Key>, limit: usize) -> Page {
        self.scan_parts(after, limit, Parts::ALL)
    }

    /// As [`Self::scan`], with these parts of the records.
    pub fn scan_parts(&self, after: Option<&Key>, limit: usize, parts: Parts) -> Page {
        let _reading = self.core.reading();
        let entries: Vec<_> = {
            let tables = self.core.tables();
            tables.after(after, limit).map(|(key, entry)| (key.id, entry.clone())).collect()
        };
        let found = entries.len();
        let (mut records, mut bytes) = (Vec::with_capacity(found), 0);
        for (id, entry) in entries {
            if bytes >= SCAN_BYTES {
                break;
            }
            let record = self.core.record(id, entry, parts);
            bytes += record.bytes();
            records.push(record);
        }
        let end = found < limit && records.len() == found;
        Page { records, end }
    }
}
