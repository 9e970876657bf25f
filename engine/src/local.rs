//! A collection that one owner writes and reads, without a thread, a queue or indexers: the same log, tables, indexes,
//! snapshots and recovery as those of a [`Collection`](crate::Collection), done by calls that have done it all when
//! they return. Simulations of many nodes are made of it, over a disk in memory whose power they cut.

use std::sync::Arc;
use std::time::Duration;

use vecino_model::message::ReplicaHits;
use vecino_model::{CollectionId, CollectionSchema, CollectionStats, Outcome, Parts, PointId, RawHit, Record, Version};
use vecino_storage::{Disk, LogError, SnapshotSummary};

use crate::core::Core;
use crate::group::Group;
use crate::key::Key;
use crate::linking::{Linkable, link_some};
use crate::persist::errors::{OpenError, TakeError};
use crate::persist::opening;
use crate::persist::taking;
use crate::progress::Progress;
use crate::reads::{Page, SearchError, SearchRequest};
use crate::resources::Share;
use crate::writer::Writer;

/// A collection without threads.
///
/// Dropping it writes nothing: what [`Self::apply`] or [`Self::flush`] made durable is there when it is opened again,
/// as after a crash of the process.
pub struct LocalCollection {
    writer: Writer,
}

impl LocalCollection {
    /// Opens a collection, or makes it: loads the newest snapshot that is whole and replays the log behind it.
    ///
    /// `share` is in the collection's name, and [`Resources::unlimited`](crate::resources::Resources::unlimited) has
    /// shares that nothing is refused for. `segment_bytes` is the size of a log segment. A snapshot of many thousand
    /// points is read by several threads, which have ended when this returns.
    ///
    /// # Errors
    /// What lies on the disk cannot be read, or the schema asks for what cannot be.
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: &str,
        share: Share,
        id: CollectionId,
        schema: CollectionSchema,
        segment_bytes: u64,
    ) -> Result<Self, OpenError> {
        let opened = opening::recover(disk, directory, id, &schema, segment_bytes, share, &Progress::default())?;
        // Without a pause, which would go by the clock of the machine, a log that has failed is tried at every batch.
        Ok(Self { writer: Writer::new(opened, id, schema, Duration::ZERO) })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.core().name
    }

    /// Its id.
    pub fn id(&self) -> CollectionId {
        self.core().id
    }

    /// Its schema.
    pub fn schema(&self) -> &CollectionSchema {
        &self.core().schema
    }

    /// Applies each record that is newer than the version of its point here. A record whose outcome is `Written` is durable
    /// and searchable when this returns; with a schema that does not flush always, it is durable after the next
    /// [`Self::flush`].
    ///
    /// Gives one outcome a record, as [`Collection::apply`](crate::Collection::apply) does.
    pub fn apply(&mut self, records: Vec<Record>) -> Vec<Outcome> {
        let mut group = Group::default();
        self.writer.admit(records, &mut group);
        self.writer.write(&mut group);
        self.writer.catch_up(&**self.core());
        group.into_outcomes().into_iter().flatten().collect()
    }

    /// Makes everything logged so far durable; gives the log sequence number that comes next.
    pub fn flush(&mut self) -> Result<u64, LogError> {
        self.writer.flush()
    }

    /// Takes a snapshot and cuts the log behind the older of the two that are kept.
    pub fn snapshot(&mut self) -> Result<SnapshotSummary, TakeError> {
        let core = Arc::clone(self.core());
        let (summary, oldest) = taking::take(&core, || Ok(self.writer.flush()?))?;
        if let Some(lsn) = oldest {
            self.writer.cut_log(lsn);
        }
        Ok(summary)
    }

    /// Does a part of what indexers do for a [`Collection`](crate::Collection) in their own time: links up to
    /// `slots_max` stored slots of each field into its graph, and where none is left, takes as many buried ones out of
    /// it. True if there may be more to do. A search finds what is not linked by a scan, so it may be left undone.
    pub fn link(&mut self, slots_max: usize) -> bool {
        let core = self.core();
        link_some(&**core, slots_max)
            || core.indexes().into_iter().fold(false, |more, index| more | index.consolidate_idle(slots_max))
    }

    /// The newest versions of points, tombstones included.
    pub fn versions(&self, ids: &[PointId]) -> Vec<Option<Version>> {
        self.core().versions(ids)
    }

    /// The newest records of points with these parts of them, tombstones included.
    pub fn read_parts(&self, ids: &[PointId], parts: Parts) -> Vec<Option<Record>> {
        self.core().read_parts(ids, parts)
    }

    /// Up to `limit` records after a key with these parts of them, in ring order; fewer where they are large.
    pub fn scan_parts(&self, after: Option<&Key>, limit: usize, parts: Parts) -> Page {
        self.core().scan_parts(after, limit, parts)
    }

    /// The best hits.
    pub fn search(&self, request: &SearchRequest) -> Result<Vec<RawHit>, SearchError> {
        self.search_with_horizon(request).map(|found| found.hits)
    }

    /// [`Self::search`], and how good what was left out may be.
    ///
    /// # Errors
    /// As [`Self::search`].
    pub fn search_with_horizon(&self, request: &SearchRequest) -> Result<ReplicaHits, SearchError> {
        self.core().search(request, None)
    }

    /// Counts and sizes.
    pub fn stats(&self) -> CollectionStats {
        self.core().stats()
    }

    /// The newest version of all points, tombstones included.
    pub fn newest_version(&self) -> Option<Version> {
        self.core().newest_version()
    }

    /// Records that opening it anew would have to replay.
    pub fn replay_records(&self) -> u64 {
        self.core().replay_records()
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        self.writer.core()
    }
}
