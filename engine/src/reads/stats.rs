//! What is told of a collection: counts, sizes, and how far it is with linking.

use std::sync::atomic::Ordering;

use vecino_model::{CollectionStats, Serving, Version};

use crate::core::Core;
use crate::progress;

impl Core {
    /// Bytes of records that a restart would have to replay: those logged since the last snapshot.
    pub(crate) fn replay_bytes(&self) -> u64 {
        let logged = self.logged_bytes.load(Ordering::Acquire);
        logged.saturating_sub(self.snapshot_logged_bytes.load(Ordering::Acquire))
    }

    /// The newest version of all points, tombstones included.
    pub(crate) fn newest_version(&self) -> Option<Version> {
        self.tables().newest()
    }

    /// Records that a restart would have to replay.
    pub(crate) fn replay_records(&self) -> u64 {
        let next = self.next_lsn.load(Ordering::Acquire);
        next.saturating_sub(self.snapshot_lsn.load(Ordering::Acquire))
    }

    /// Bytes of log on disk.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.log_bytes.load(Ordering::Relaxed)
    }

    /// Live points that wait to be linked into a graph.
    pub(crate) fn unlinked(&self) -> usize {
        self.fields.unlinked()
    }

    /// How many slots of loaded indexes have their codes, and of how many, while some have not.
    pub(crate) fn warming(&self) -> Option<(usize, usize)> {
        self.fields.warming()
    }

    /// Counts and sizes.
    pub(crate) fn stats(&self) -> CollectionStats {
        // Indexers change what indexes take, so this is not only the writer's to find out.
        self.settle_memory();
        let (points, tombstones) = {
            let tables = self.tables();
            (tables.live() as u64, tables.tombstones() as u64)
        };
        let warming = self.warming();
        CollectionStats {
            serving: if warming.is_some() { Serving::Warming } else { Serving::Open },
            percent: warming.map(|(done, total)| progress::percent(done as u64, total as u64)),
            points,
            tombstones,
            unlinked: self.unlinked() as u64,
            log_bytes: self.log_bytes(),
            index_bytes: self.fields.memory_bytes() as u64,
            memory_bytes: self.share.account.held(),
            snapshot_lsn: self.snapshot_lsn.load(Ordering::Acquire),
            error: self.faults.told(),
        }
    }
}
