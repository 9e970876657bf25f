//! What is told of a collection: counts, sizes, and how far it is with linking.

use std::sync::atomic::Ordering;

use vecino_model::{CollectionStats, Serving, Version};

use crate::collection::handle::Collection;
use crate::progress;

impl Collection {
    /// Bytes of records that a restart would have to replay: those logged since the last snapshot.
    pub fn replay_bytes(&self) -> u64 {
        let logged = self.core.logged_bytes.load(Ordering::Acquire);
        logged.saturating_sub(self.core.snapshot_logged_bytes.load(Ordering::Acquire))
    }

    /// The newest version of all points, tombstones included.
    pub fn newest_version(&self) -> Option<Version> {
        self.core.tables().newest()
    }

    /// Records that a restart would have to replay.
    pub fn replay_records(&self) -> u64 {
        let next = self.core.next_lsn.load(Ordering::Acquire);
        next.saturating_sub(self.core.snapshot_lsn.load(Ordering::Acquire))
    }

    /// Bytes of log on disk.
    pub fn log_bytes(&self) -> u64 {
        self.core.log_bytes.load(Ordering::Relaxed)
    }

    /// Live points that wait to be linked into a graph.
    pub fn unlinked(&self) -> usize {
        self.core.fields.unlinked()
    }

    /// How many slots of loaded indexes have their codes, and of how many, while some have not.
    pub fn warming(&self) -> Option<(usize, usize)> {
        self.core.fields.warming()
    }

    /// Whether its writer has panicked, so that it has to be opened anew.
    pub fn is_broken(&self) -> bool {
        self.core.faults.writer().is_some()
    }

    /// Whether the caller alone holds the collection, and nothing waits to be linked or coded.
    pub fn is_idle(&self) -> bool {
        self.is_held_alone() && self.unlinked() == 0 && self.warming().is_none()
    }

    /// Counts and sizes.
    pub fn stats(&self) -> CollectionStats {
        // Indexers change what indexes take, so this is not only the writer's to find out.
        self.core.settle_memory();
        let (points, tombstones) = {
            let tables = self.core.tables();
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
            index_bytes: self.core.fields.memory_bytes() as u64,
            memory_bytes: self.core.share.account.held(),
            snapshot_lsn: self.core.snapshot_lsn.load(Ordering::Acquire),
            error: self.core.faults.told(),
        }
    }
}
