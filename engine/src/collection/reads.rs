//! What is asked of an open collection, by whoever holds it.

use std::sync::atomic::AtomicBool;

use vecino_model::message::ReplicaHits;
use vecino_model::{CollectionStats, Parts, PointId, RawHit, Record, Version};

use crate::collection::handle::Collection;
use crate::key::Key;
use crate::reads::{Page, SearchError, SearchRequest};

impl Collection {
    /// The newest versions of points, tombstones included.
    pub fn versions(&self, ids: &[PointId]) -> Vec<Option<Version>> {
        self.core.versions(ids)
    }

    /// The newest records of points, tombstones included.
    pub fn read(&self, ids: &[PointId]) -> Vec<Option<Record>> {
        self.read_parts(ids, Parts::ALL)
    }

    /// The newest records of points with these parts of them, tombstones included.
    pub fn read_parts(&self, ids: &[PointId], parts: Parts) -> Vec<Option<Record>> {
        self.core.read_parts(ids, parts)
    }

    /// Up to `limit` records after a key, in ring order; fewer where they are large.
    pub fn scan(&self, after: Option<&Key>, limit: usize) -> Page {
        self.scan_parts(after, limit, Parts::ALL)
    }

    /// As [`Self::scan`], with these parts of the records.
    pub fn scan_parts(&self, after: Option<&Key>, limit: usize, parts: Parts) -> Page {
        self.core.scan_parts(after, limit, parts)
    }

    /// The best hits of this node's index. Blocks for as long as the search takes.
    pub fn search(&self, request: &SearchRequest) -> Result<Vec<RawHit>, SearchError> {
        self.search_until(request, None).map(|found| found.hits)
    }

    /// [`Self::search`], and how good what was left out may be. A scan ends soon after `stop` is set; nobody must wait for
    /// the hits then.
    ///
    /// # Errors
    /// As [`Self::search`].
    pub fn search_until(&self, request: &SearchRequest, stop: Option<&AtomicBool>) -> Result<ReplicaHits, SearchError> {
        self.core.search(request, stop)
    }

    /// Counts and sizes.
    pub fn stats(&self) -> CollectionStats {
        self.core.stats()
    }

    /// The newest version of all points, tombstones included.
    pub fn newest_version(&self) -> Option<Version> {
        self.core.newest_version()
    }

    /// Bytes of records that a restart would have to replay: those logged since the last snapshot.
    pub fn replay_bytes(&self) -> u64 {
        self.core.replay_bytes()
    }

    /// Records that a restart would have to replay.
    pub fn replay_records(&self) -> u64 {
        self.core.replay_records()
    }

    /// Bytes of log on disk.
    pub fn log_bytes(&self) -> u64 {
        self.core.log_bytes()
    }

    /// Live points that wait to be linked into a graph.
    pub fn unlinked(&self) -> usize {
        self.core.unlinked()
    }

    /// How many slots of loaded indexes have their codes, and of how many, while some have not.
    pub fn warming(&self) -> Option<(usize, usize)> {
        self.core.warming()
    }
}
