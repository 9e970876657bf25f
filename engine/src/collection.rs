//! One collection on one node: its log, its tables, its indexes, its snapshots.
//!
//! ```text
//! apply -> writer thread: newer? -> log, flush -> index.store, tables.apply -> answer
//!                                                      \-> indexers link the slot into the graph
//! ```
//!
//! [`Collection`] is a handle that any task may hold. One writer thread owns the log and is the only one that
//! changes the tables; [`indexers`] link slots; a snapshot runs beside both (`persist`). Readers take a read lock on
//! the tables, briefly, and none on the indexes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};
use vecino_index::SearchOptions;
use vecino_model::{
    CollectionId, CollectionSchema, CollectionStats, Fields, Hit, Outcome, PointId, Record, Serving, Vector, Version,
};
use vecino_storage::{Disk, SnapshotSummary};
use vecino_supervise::caught;

use crate::core::Core;
use crate::faults::Faults;
use crate::indexers::Indexers;
use crate::progress::Progress;
use crate::slots::Slots;
use crate::tables::{Entry, Key, Live};

use crate::resources::Share;
use crate::{indexers, persist, progress, writer};

pub use crate::persist::{OpenError, TakeError};
pub use crate::trouble::Trouble;

/// Batches that may wait for the writer; one more waits outside, which is what slows its sender down.
const QUEUE_BATCHES_MAX: usize = 32;

/// Most bytes of payloads and vectors in the answer to one search.
const SEARCH_BYTES_MAX: usize = 32 * 1024 * 1024;

/// How often a search looks again because points were overwritten while it looked.
const SEARCH_TRIES: usize = 4;

/// Bytes of records after which a page of a scan ends.
pub(crate) const SCAN_BYTES: usize = 4 * 1024 * 1024;

/// What one node's index is searched for.
#[derive(Clone, Debug)]
pub struct SearchRequest {
    /// Vector field.
    pub field: String,
    /// Query vector.
    pub vector: Vector,
    /// Hits wanted.
    pub k: u32,
    /// Candidates that the graph walk keeps.
    pub ef: u32,
    /// Only hits at least this good.
    pub threshold: Option<f32>,
    /// Whether payloads are wanted.
    pub with_payload: bool,
    /// Whether vectors are wanted.
    pub with_vectors: bool,
    /// Search exactly, without the graph.
    pub exact: bool,
}

/// A collection that is open. Cheap to clone.
#[derive(Clone)]
pub struct Collection {
    pub(crate) core: Arc<Core>,
    writer: Arc<WriterHandle>,
}

/// The writer's queue; its last holder stops the thread.
struct WriterHandle {
    queue: Mutex<Option<mpsc::Sender<writer::Command>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Why a write did not happen.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ApplyError {
    /// The collection is being closed; nothing was written.
    #[error("collection {0:?} is closed")]
    Closed(String),
    /// The writer has panicked; nothing was written.
    #[error(
        "collection {collection:?} takes no writes until it is opened anew, for its writer panicked ({reason}): try again"
    )]
    Broken {
        /// Its name.
        collection: String,
        /// What the panic said.
        reason: String,
    },
    /// The writer ended before it answered; what was asked of it may be written.
    #[error("the writer of collection {0:?} ended before it answered")]
    Lost(String),
}

/// Why a search could not be done.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// No such field.
    #[error("vector field {0:?} is not in the schema")]
    UnknownField(String),
    /// The index refused it.
    #[error(transparent)]
    Index(#[from] vecino_index::IndexError),
    /// The answer would be too large.
    #[error(
        "payloads and vectors of the hits take more than {SEARCH_BYTES_MAX} bytes: ask for fewer hits, or without them"
    )]
    TooLarge,
}

/// A page of records in ring order.
pub struct Page {
    /// The records, tombstones included.
    pub records: Vec<Record>,
    /// Whether nothing comes after them.
    pub end: bool,
}

impl Collection {
    /// Opens a collection, or makes it: loads the newest snapshot that is whole and replays the log behind it.
    ///
    /// Blocks; `runtime` is where the writer waits for work. `share` is in the collection's name.
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: &str,
        share: Share,
        id: CollectionId,
        schema: CollectionSchema,
        indexers: Arc<Indexers>,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self, OpenError> {
        Self::open_watched(disk, directory, share, id, schema, indexers, runtime, &Progress::default())
    }

    /// [`Self::open`], telling how far it is.
    #[allow(clippy::too_many_arguments, reason = "those of open, and one more")]
    pub fn open_watched(
        disk: Arc<dyn Disk>,
        directory: &str,
        share: Share,
        id: CollectionId,
        schema: CollectionSchema,
        indexers: Arc<Indexers>,
        runtime: tokio::runtime::Handle,
        progress: &Progress,
    ) -> Result<Self, OpenError> {
        let opened = persist::open(disk, directory, id, &schema, persist::SEGMENT_BYTES, share, progress)?;
        Self::start(opened, id, schema, indexers, runtime)
    }

    /// [`Self::open`], with log segments of a size that is not the usual one.
    ///
    /// # Errors
    /// As [`Self::open`].
    #[allow(clippy::too_many_arguments, reason = "those of open, and one more")]
    pub fn open_with_segments(
        disk: Arc<dyn Disk>,
        directory: &str,
        share: Share,
        id: CollectionId,
        schema: CollectionSchema,
        indexers: Arc<Indexers>,
        runtime: tokio::runtime::Handle,
        segment_bytes: u64,
    ) -> Result<Self, OpenError> {
        let opened = persist::open(disk, directory, id, &schema, segment_bytes, share, &Progress::default())?;
        Self::start(opened, id, schema, indexers, runtime)
    }

    /// Sets the writer and the indexers to work on what was opened.
    pub(crate) fn start(
        opened: persist::Opened,
        id: CollectionId,
        schema: CollectionSchema,
        indexers: Arc<Indexers>,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self, OpenError> {
        let name = opened.share.account.collection().to_owned();
        for (_, index) in &opened.indexes {
            let memory = Arc::clone(opened.share.account.budget());
            index.ask_before_growing(Box::new(move |bytes| Some(Box::new(memory.try_count(bytes as u64)?))));
        }
        // Before anybody consolidates: what becomes vacant from then on is handed out by the indexes.
        let slots = Slots::of(&opened.tables, &opened.indexes);
        let core = Arc::new(Core {
            name: name.clone(),
            id,
            schema,
            tables: RwLock::new(opened.tables),
            indexes: opened.indexes,
            snapshots: Mutex::new(opened.snapshots),
            next_lsn: AtomicU64::new(opened.log.next_lsn()),
            snapshot_lsn: AtomicU64::new(opened.snapshot_lsn),
            log_bytes: AtomicU64::new(opened.log.bytes()),
            logged_bytes: AtomicU64::new(opened.replayed_bytes),
            snapshot_logged_bytes: AtomicU64::new(0),
            tail: indexers.tails().tail(),
            faults: Faults::default(),
            indexers,
            share: opened.share,
        });
        let (queue, mut commands) = mpsc::channel(QUEUE_BATCHES_MAX);
        let thread = std::thread::Builder::new()
            .name(format!("writer-{name}"))
            .spawn({
                let core = Arc::clone(&core);
                move || {
                    let log = (opened.log, opened.log_place);
                    let ran = caught("a writer", || writer::run(&core, log, slots, &mut commands, &runtime));
                    if let Err(panic) = ran {
                        // Before what waits in the queue is given up.
                        core.faults.writer_panicked(&panic);
                    }
                }
            })
            .map_err(OpenError::Thread)?;
        core.wake_all_indexers();
        let writer = WriterHandle { queue: Mutex::new(Some(queue)), thread: Mutex::new(Some(thread)) };
        Ok(Self { core, writer: Arc::new(writer) })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// Its id.
    pub fn id(&self) -> CollectionId {
        self.core.id
    }

    /// Its schema.
    pub fn schema(&self) -> &CollectionSchema {
        &self.core.schema
    }

    /// Applies records, each if it is newer than what is there, and returns once they are durable and searchable.
    ///
    /// Gives one outcome a record: [`Outcome::Written`] with the version that now stands, which is a newer one where the
    /// point had one; [`Outcome::Refused`] where the vectors do not fit the schema; [`Outcome::Unavailable`] where there is
    /// no memory, no room on the disk, or no way to write to it, and nothing was written; [`Outcome::Unknown`] where the
    /// disk failed in a way that leaves open what it has.
    pub async fn apply(&self, records: Vec<Record>) -> Result<Vec<Outcome>, ApplyError> {
        let closed = || match self.core.faults.writer() {
            Some(reason) => ApplyError::Broken { collection: self.core.name.clone(), reason },
            None => ApplyError::Closed(self.core.name.clone()),
        };
        let memory = self.core.share.account.budget();
        if records.iter().any(|record| record.value.is_some()) && !memory.delay().is_zero() {
            tokio::time::sleep(memory.delay()).await;
        }
        let bytes: usize = records.iter().map(Record::bytes).sum();
        // Each record is there as it came and as it is logged.
        let _queued = memory.count(2 * bytes as u64);
        let queue = self.writer.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (answer, answered) = oneshot::channel();
        let batch = writer::Command::Apply { records, answer };
        queue.ok_or_else(closed)?.send(batch).await.map_err(|_| closed())?;
        answered.await.map_err(|_| ApplyError::Lost(self.core.name.clone()))?
    }

    /// The newest versions of points, tombstones included.
    pub fn versions(&self, ids: &[PointId]) -> Vec<Option<Version>> {
        let tables = self.core.tables();
        ids.iter().map(|id| tables.version(&self.core.key(id))).collect()
    }

    /// The newest records of points, tombstones included.
    pub fn read(&self, ids: &[PointId]) -> Vec<Option<Record>> {
        let _reading = self.core.reading();
        let found: Vec<_> = {
            let tables = self.core.tables();
            ids.iter().map(|id| tables.entry(&self.core.key(id)).cloned()).collect()
        };
        let record = |(id, entry): (&PointId, Option<Entry>)| entry.map(|entry| self.core.record(id.clone(), entry));
        ids.iter().zip(found).map(record).collect()
    }

    /// The best hits of this node's index. Blocks for as long as the search takes.
    pub fn search(&self, request: &SearchRequest) -> Result<Vec<Hit>, SearchError> {
        let SearchRequest { field, vector, k, ef, threshold, with_payload, with_vectors, exact } = request;
        let index = self.core.index(field).ok_or_else(|| SearchError::UnknownField(field.clone()))?;
        let options = SearchOptions { k: *k as usize, ef: (*ef).max(*k) as usize, threshold: *threshold, filter: None };
        let mut live: Vec<(f32, Arc<Live>)> = Vec::new();
        // From the search to the last look at a slot that it gave: none of them is used again meanwhile.
        let _reading = self.core.reading();
        for _ in 0..SEARCH_TRIES {
            let found =
                if *exact { index.search_exact(&vector.0, &options)? } else { index.search(&vector.0, &options)? };
            let tables = self.core.tables();
            live = found.iter().filter_map(|hit| Some((hit.score, Arc::clone(tables.in_slot(hit.slot)?)))).collect();
            // A point that was overwritten since the index looked is in a slot that the index did not look at.
            if live.len() == found.len() {
                break;
            }
        }
        let vector_bytes = if *with_vectors { self.core.indexes.len() * vector.0.len() * 4 } else { 0 };
        let hit_bytes = |live: &Live| vector_bytes + if *with_payload { live.payload.len() } else { 0 };
        let bytes = live.iter().map(|(_, live)| hit_bytes(live)).sum::<usize>();
        if bytes > SEARCH_BYTES_MAX {
            return Err(SearchError::TooLarge);
        }
        let _answer = self.core.share.account.budget().count(bytes as u64);
        let hit = |(score, live): (f32, Arc<Live>)| Hit {
            id: live.key.id.clone(),
            score,
            version: live.version,
            // Written by this node after it was checked, so it decodes.
            payload: with_payload.then(|| rmp_serde::from_slice(&live.payload).unwrap_or_default()),
            vectors: if *with_vectors { self.core.vectors(&live) } else { Fields::new() },
        };
        Ok(live.into_iter().map(hit).collect())
    }

    /// Up to `limit` records after a key, in ring order; fewer where they are large.
    pub fn scan(&self, after: Option<&Key>, limit: usize) -> Page {
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
            let record = self.core.record(id, entry);
            bytes += record.bytes();
            records.push(record);
        }
        let end = found < limit && records.len() == found;
        Page { records, end }
    }

    /// Takes a snapshot and has the log cut behind the older of the two that are kept. Writers go on.
    ///
    /// Blocks, so it is not for a task of the asynchronous runtime. Refused while another one is being taken.
    pub fn snapshot(&self) -> Result<SnapshotSummary, TakeError> {
        let queue = self.writer.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let closed = || TakeError::Closed(self.core.name.clone());
        let queue = queue.ok_or_else(closed)?;
        let flush = || {
            let (answer, answered) = oneshot::channel();
            queue.blocking_send(writer::Command::Flush { answer }).map_err(|_| closed())?;
            Ok(answered.blocking_recv().map_err(|_| closed())??)
        };
        // On a thread of its own, which gives way to those that answer.
        let (summary, oldest) = std::thread::scope(|scope| {
            let name = format!("snapshot-{}", self.core.name);
            let thread = std::thread::Builder::new().name(name).spawn_scoped(scope, || {
                indexers::give_way();
                caught("a snapshot", || persist::snapshot(&self.core, flush))
            })?;
            let ended = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            ended.map_err(|panic| {
                self.core.faults.snapshot_ended(Some(&panic));
                TakeError::Panicked { collection: self.core.name.clone(), reason: panic.message().to_owned() }
            })?
        })?;
        self.core.faults.snapshot_ended(None);
        // They took nothing out of the graphs meanwhile.
        self.core.wake_indexers();
        if let Some(lsn) = oldest {
            // A full queue or a stopped writer means that the next snapshot cuts the log.
            let _ = queue.try_send(writer::Command::CutLog { before: lsn });
        }
        Ok(summary)
    }

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
        self.core.indexes.iter().map(|(_, index)| index.unlinked()).max().unwrap_or(0)
    }

    /// How many slots of loaded indexes have their codes, and of how many, while some have not.
    pub fn warming(&self) -> Option<(usize, usize)> {
        let warming = self.core.indexes.iter().filter_map(|(_, index)| index.warming());
        warming.reduce(|(done, total), next| (done + next.0, total + next.1))
    }

    /// Whether its writer has panicked, so that it has to be opened anew.
    pub fn is_broken(&self) -> bool {
        self.core.faults.writer().is_some()
    }

    /// Whether nobody but the caller holds the collection.
    pub fn is_held_alone(&self) -> bool {
        Arc::strong_count(&self.writer) == 1
    }

    /// Whether nobody but the caller holds the collection, and nothing waits to be linked or coded.
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
            index_bytes: self.core.indexes.iter().map(|(_, index)| index.memory_bytes() as u64).sum(),
            memory_bytes: self.core.share.account.held(),
            snapshot_lsn: self.core.snapshot_lsn.load(Ordering::Acquire),
            error: self.core.faults.told(),
        }
    }

    /// Lets the writer finish what it has, and stops it. Blocks. Writes are refused from then on, reads go on.
    pub fn close(&self) {
        self.writer.stop();
    }
}

impl WriterHandle {
    fn stop(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // It catches its panics.
            let _ = thread.join();
        }
    }
}

impl Drop for WriterHandle {
    fn drop(&mut self) {
        self.stop();
    }
}
