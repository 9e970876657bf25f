//! Snapshots of a collection, and opening it from them and its log.
//!
//! A snapshot is fuzzy: it runs beside the writer. It holds every record before its lsn, and perhaps later ones;
//! replaying the log from its lsn puts those right, since applying a record twice changes nothing. The slot table is
//! written before the indexes, so a slot that it names has its vectors in the index arenas that follow; slots in the
//! arenas that the table does not name are buried on loading.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, TryLockError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use vecino_index::{ArenaPieces, ArenaSink, ArenaSource, Index, Slot};
use vecino_model::{
    CollectionId, CollectionSchema, FieldSchema, Fsync, Metric, Profile, Record, RecordValue, position,
};
use vecino_storage::{
    ArenaPages, Disk, Log, LogError, LogOptions, PAGE_BYTES, Snapshot, SnapshotError, SnapshotStore, SnapshotSummary,
    SnapshotWriter, SyncPolicy,
};
use vecino_supervise::Panicked;

use crate::core::Core;
use crate::memory::{Account, OverLimit};
use crate::points;
use crate::progress::{Phase, Progress};
use crate::record::{self, SnapshotEntry};
use crate::resources::{Resources, Share};
use crate::tables::{Key, Live, Tables};

/// Bytes of one log segment.
pub(crate) const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// Version of what the arenas "meta", "points" and "tombstones" hold.
const FORMAT: u32 = 1;
/// A snapshot of no more bytes is read by one thread.
const SMALL_BYTES: u64 = 1024 * 1024;
/// Records that were logged no longer ago are being logged.
const LOGGING: Duration = Duration::from_millis(200);
/// How many times as long as a page of a snapshot took the rest after it is.
const REST: u32 = 2;
/// The longest rest after a page.
const REST_MAX: Duration = Duration::from_millis(50);
/// Slots or entries that are copied under one read lock.
const CHUNK: usize = 1024;

const META: &str = "meta";
pub(crate) const POINTS: &str = "points";
pub(crate) const TOMBSTONES: &str = "tombstones";
/// Where the pages of a snapshot lie.
const PAGES: &str = "pages";
/// The arena of an index that holds its vectors as they were given.
const VECTORS: &str = "vectors";

/// Why a collection could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The snapshots.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// No snapshot could be read, and the log no longer reaches back to the first write.
    #[error(
        "no snapshot can be read and the log begins at lsn {first_lsn}: records before it are gone from this node ({reason})"
    )]
    Incomplete {
        /// First record that the log still has.
        first_lsn: u64,
        /// What was wrong with the last snapshot that was tried.
        reason: String,
    },
    /// A record that the log says is whole and that does not decode.
    #[error("log record {lsn} cannot be applied: {reason}")]
    Record {
        /// Which record.
        lsn: u64,
        /// Why.
        reason: String,
    },
    /// The schema asks for an index that cannot be made.
    #[error(transparent)]
    Index(#[from] vecino_index::IndexError),
    /// It does not fit into the memory that the node may use.
    #[error(transparent)]
    Memory(OverLimit),
    /// A thread could not be started.
    #[error("the writer thread could not be started: {0}")]
    Thread(#[source] io::Error),
    /// Opening it panicked.
    #[error("{0}; it is tried again")]
    Panicked(#[from] Panicked),
}

impl OpenError {
    /// Whether what lies on disk is damaged or incomplete, so that trying again is no use: only other replicas have what
    /// is missing.
    pub fn needs_copy(&self) -> bool {
        match self {
            Self::Log(LogError::Corrupt { .. }) | Self::Incomplete { .. } | Self::Record { .. } => true,
            Self::Log(_)
            | Self::Snapshot(_)
            | Self::Index(_)
            | Self::Memory(_)
            | Self::Thread(_)
            | Self::Panicked(_) => false,
        }
    }
}

/// Why a snapshot could not be taken. The older ones are as they were.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The snapshot store.
    #[error(transparent)]
    Store(#[from] SnapshotError),
    /// Writing its pages.
    #[error("cannot write the snapshot: {0}")]
    Io(#[from] io::Error),
    /// The log could not be flushed up to where the snapshot begins.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The collection is being closed.
    #[error("collection {0:?} is closed")]
    Closed(String),
    /// One at a time.
    #[error("a snapshot of collection {0:?} is being taken already")]
    Busy(String),
    /// Taking it panicked.
    #[error("a snapshot of collection {collection:?} panicked ({reason}); the log has everything")]
    Panicked {
        /// Its name.
        collection: String,
        /// What the panic said.
        reason: String,
    },
}

/// Why one snapshot could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Index(#[from] vecino_index::LoadError),
    #[error(transparent)]
    Memory(#[from] OverLimit),
    #[error("arena {0:?} is missing")]
    MissingArena(&'static str),
    #[error("arena {arena:?} does not decode: {reason}")]
    Decode { arena: &'static str, reason: String },
    #[error("it is of {0}, not of this collection")]
    Foreign(String),
    #[error("it has format {found}, and this version knows {FORMAT} at most: use a newer vecino")]
    Newer { found: u32 },
}

/// First arena: what the snapshot is of.
#[derive(Serialize, Deserialize)]
struct Meta {
    format: u32,
    collection: CollectionId,
    fields: Vec<String>,
}

/// The index of each vector field, in the schema's order.
type Indexes = Vec<(String, Index)>;

/// A collection's parts, opened.
pub(crate) struct Opened {
    pub tables: Tables,
    pub indexes: Indexes,
    pub log: Log,
    pub log_place: LogPlace,
    pub snapshots: SnapshotStore,
    pub snapshot_lsn: u64,
    pub replayed_bytes: u64,
    pub share: Share,
}

/// Where a log is, to open it again.
pub(crate) struct LogPlace {
    disk: Arc<dyn Disk>,
    directory: String,
    options: LogOptions,
}

impl LogPlace {
    /// Opens the log; recovery settles what was in doubt.
    pub fn open(&self, id: CollectionId) -> Result<Log, LogError> {
        Ok(Log::open(Arc::clone(&self.disk), &self.directory, id.0, self.options)?.0)
    }
}

/// Where the log of the collection in `directory` lies.
pub fn log_dir(directory: &str) -> String {
    format!("{directory}/log")
}

/// Where the snapshots of the collection in `directory` lie.
pub fn snapshots_dir(directory: &str) -> String {
    format!("{directory}/snapshots")
}

/// Bytes of the files of the collection in `directory`, as far as they can be looked at.
pub fn disk_bytes(disk: &dyn Disk, directory: &str) -> u64 {
    let snapshots = snapshots_dir(directory);
    let folders = [log_dir(directory), format!("{snapshots}/{PAGES}"), snapshots];
    let files = folders.iter().flat_map(|folder| {
        let names = disk.list(folder).unwrap_or_default();
        names.into_iter().filter(|name| name != PAGES).map(move |name| format!("{folder}/{name}"))
    });
    files.filter_map(|path| disk.open_read(&path).and_then(|file| file.len()).ok()).sum()
}

/// Loads the newest usable snapshot and replays the log behind it.
pub(crate) fn open(
    disk: Arc<dyn Disk>,
    directory: &str,
    id: CollectionId,
    schema: &CollectionSchema,
    segment_bytes: u64,
    share: Share,
    progress: &Progress,
) -> Result<Opened, OpenError> {
    let sync = match schema.fsync {
        Fsync::Always => SyncPolicy::Always,
        Fsync::EveryMs(ms) => SyncPolicy::EveryMs(ms),
        Fsync::Never => SyncPolicy::Never,
    };
    let options = LogOptions { segment_bytes, sync };
    let snapshots = SnapshotStore::open(Arc::clone(&disk), &snapshots_dir(directory))?;
    let log_place = LogPlace { disk, directory: log_dir(directory), options };
    let (log, recovery) = Log::open(Arc::clone(&log_place.disk), &log_place.directory, id.0, options)?;
    if recovery.torn_bytes_cut > 0 {
        warn!(directory, bytes = recovery.torn_bytes_cut, "the log ended in a write that never finished; cut it");
    }
    let (mut tables, indexes, snapshot_lsn) =
        load_newest(&snapshots, id, schema, recovery.first_lsn, &share.account, progress)?;
    progress.begin(Phase::Replay, log.next_lsn().saturating_sub(snapshot_lsn));
    let (mut replayed, mut replayed_bytes) = (0u64, 0u64);
    let mut over_limit = None;
    let done = log.replay(snapshot_lsn, &mut |lsn, bytes| {
        if replayed.is_multiple_of(CHUNK as u64)
            && let Err(over) = share.account.open_with(memory_bytes(&tables, &indexes))
        {
            over_limit = Some(over.clone());
            return Err(over.into());
        }
        replay_one(&mut tables, &indexes, id, bytes).map_err(|reason| OpenError::Record { lsn, reason })?;
        replayed += 1;
        progress.add(1);
        replayed_bytes += bytes.len() as u64;
        Ok(())
    });
    if let Some(over) = over_limit {
        return Err(OpenError::Memory(over));
    }
    done?;
    share.account.open_with(memory_bytes(&tables, &indexes)).map_err(OpenError::Memory)?;
    info!(directory, snapshot_lsn, replayed, points = tables.live(), "opened collection");
    Ok(Opened { tables, indexes, log, log_place, snapshots, snapshot_lsn, replayed_bytes, share })
}

fn load_newest(
    snapshots: &SnapshotStore,
    id: CollectionId,
    schema: &CollectionSchema,
    first_lsn: u64,
    account: &Account,
    progress: &Progress,
) -> Result<(Tables, Indexes, u64), OpenError> {
    let mut reason = String::new();
    for snapshot in snapshots.snapshots() {
        let lsn = snapshot.lsn();
        match load(&snapshot, id, schema, account, progress) {
            Ok((tables, indexes)) => return Ok((tables, indexes, lsn)),
            // The older one would not fit either, and nothing is wrong with this one.
            Err(LoadError::Memory(over)) => return Err(OpenError::Memory(over)),
            Err(error) => {
                warn!(lsn, error = causes(&error), "a snapshot cannot be used; trying what is older");
                reason = causes(&error);
            }
        }
    }
    if first_lsn > 1 {
        if reason.is_empty() {
            reason = "there is none".to_owned();
        }
        return Err(OpenError::Incomplete { first_lsn, reason });
    }
    Ok((Tables::default(), empty_indexes(id, schema)?, 1))
}

/// An error with what caused it: which page it was, and where.
fn causes(error: &LoadError) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn empty_indexes(id: CollectionId, schema: &CollectionSchema) -> Result<Indexes, OpenError> {
    let empty = |(number, (name, field)): (usize, (&String, &FieldSchema))| {
        Ok((name.clone(), Index::new(params(id, number, field))?))
    };
    schema.fields.iter().enumerate().map(empty).collect()
}

fn replay_one(
    tables: &mut Tables,
    indexes: &[(String, Index)],
    collection: CollectionId,
    bytes: &[u8],
) -> Result<(), String> {
    let Record { id, version, value } = record::decode(bytes).map_err(|error| error.to_string())?;
    let key = Key { position: position(collection, &id), id };
    if tables.version(&key).is_some_and(|known| known >= version) {
        return Ok(());
    }
    let slot = tables.slots() as Slot;
    let value = match value {
        None => None,
        Some(RecordValue { vectors, payload }) => {
            for (name, index) in indexes {
                if let Some(vector) = vectors.get(name) {
                    index.store(slot, &vector.0).map_err(|error| error.to_string())?;
                }
            }
            Some((slot, payload.into_boxed_slice()))
        }
    };
    if let Some(buried) = tables.apply(key, version, value).and_then(|applied| applied.buried) {
        indexes.iter().for_each(|(_, index)| index.bury(buried));
    }
    Ok(())
}

/// Parameters of a field's index. The seed differs between collections and fields and never changes.
fn params(id: CollectionId, number: usize, field: &FieldSchema) -> vecino_index::Params {
    let FieldSchema { dim, metric, m, ef_construction, profile } = field;
    let mut seed = [0; 8];
    seed.copy_from_slice(&id.0[..8]);
    vecino_index::Params {
        dim: *dim as usize,
        metric: match metric {
            Metric::Cosine => vecino_index::Metric::Cosine,
            Metric::Euclidean => vecino_index::Metric::Euclidean,
            Metric::Dot => vecino_index::Metric::Dot,
            Metric::Manhattan => vecino_index::Metric::Manhattan,
        },
        m: *m as usize,
        ef_construction: *ef_construction as usize,
        profile: match profile {
            Profile::Fast => vecino_index::Profile::Fast,
            Profile::Compact => vecino_index::Profile::Compact,
            Profile::Plain => vecino_index::Profile::Plain,
        },
        seed: u64::from_le_bytes(seed) ^ number as u64,
        flat_live_max: None,
        kernel: None,
    }
}

// ---------------------------------------------------------------------------------------------------------- writing

/// Takes a snapshot; gives also the lsn before which the log may be cut.
///
/// `flush` makes the log durable and gives its next lsn, before which every record is in the tables.
pub(crate) fn snapshot(
    core: &Core,
    flush: impl Fn() -> Result<u64, TakeError>,
) -> Result<(SnapshotSummary, Option<u64>), TakeError> {
    let store = match core.snapshots.try_lock() {
        Ok(store) => store,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return Err(TakeError::Busy(core.name.clone())),
    };
    let logged_bytes = core.logged_bytes.load(Ordering::Acquire);
    let lsn = flush()?;
    let mut writer = store.begin(lsn)?;
    // A slot that the table names has its vector in the indexes, however long that takes.
    let reading = core.reading();
    write_arenas(core, &mut Paced::new(core, &mut writer))?;
    drop(reading);
    // A version that was overwritten meanwhile is in the snapshot no more, so what overwrote it must be as durable.
    flush()?;
    let summary = writer.finish()?;
    core.snapshot_lsn.store(lsn, Ordering::Release);
    core.snapshot_logged_bytes.store(logged_bytes, Ordering::Release);
    Ok((summary, store.oldest_kept_lsn()))
}

fn write_arenas(core: &Core, writer: &mut Paced<'_, '_>) -> io::Result<()> {
    let fields = core.indexes.iter().map(|(name, _)| name.clone()).collect();
    writer.begin_arena(META)?;
    write_entry(writer, &Meta { format: FORMAT, collection: core.id, fields })?;

    writer.begin_arena(POINTS)?;
    let slots = core.tables().slots();
    for first in (0..slots).step_by(CHUNK) {
        let chunk: Vec<Arc<Live>> = {
            let tables = core.tables();
            (first..(first + CHUNK).min(slots)).filter_map(|slot| tables.in_slot(slot as Slot).cloned()).collect()
        };
        for live in chunk {
            let Live { key, version, slot, payload } = &*live;
            let entry =
                SnapshotEntry { id: key.id.clone(), version: *version, slot: Some(*slot), payload: payload.to_vec() };
            write_entry(writer, &entry)?;
        }
    }

    writer.begin_arena(TOMBSTONES)?;
    let mut after: Option<Key> = None;
    loop {
        let chunk: Vec<_> = {
            let tables = core.tables();
            let seen = |(key, entry): (Key, &crate::tables::Entry)| (key, entry.version, entry.live.is_none());
            tables.after(after.as_ref(), CHUNK).map(seen).collect()
        };
        let Some((last, _, _)) = chunk.last() else { break };
        after = Some(last.clone());
        for (key, version, _) in chunk.into_iter().filter(|(_, _, tombstone)| *tombstone) {
            write_entry(writer, &SnapshotEntry { id: key.id, version, slot: None, payload: Vec::new() })?;
        }
    }

    for (number, (_, index)) in core.indexes.iter().enumerate() {
        index.dump(&mut FieldSink { writer, number })?;
    }
    Ok(())
}

fn write_entry<T: Serialize>(writer: &mut Paced<'_, '_>, entry: &T) -> io::Result<()> {
    let bytes = rmp_serde::to_vec(entry).map_err(io::Error::other)?;
    writer.write(&(bytes.len() as u32).to_le_bytes())?;
    writer.write(&bytes)
}

/// Writes a snapshot at the pace that leaves the disk to the log: after a page that had to be written it rests, if records
/// are being logged, for longer than the page took. So a flush of the log waits for one page at most, and mostly for none.
struct Paced<'w, 's> {
    core: &'w Core,
    writer: &'w mut SnapshotWriter<'s>,
    pages: u64,
    since: Instant,
    logged: u64,
    logged_at: Option<Instant>,
}

impl<'w, 's> Paced<'w, 's> {
    fn new(core: &'w Core, writer: &'w mut SnapshotWriter<'s>) -> Self {
        let logged = core.logged_bytes.load(Ordering::Relaxed);
        Self { core, writer, pages: 0, since: Instant::now(), logged, logged_at: None }
    }

    fn begin_arena(&mut self, name: &str) -> io::Result<()> {
        self.writer.begin_arena(name)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write(bytes)?;
        let pages = self.writer.pages_written();
        if self.pages == pages {
            return Ok(());
        }
        self.pages = pages;
        let logged = self.core.logged_bytes.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.logged, logged) != logged {
            self.logged_at = Some(Instant::now());
        }
        if self.logged_at.is_some_and(|logged| logged.elapsed() < LOGGING) {
            std::thread::sleep((self.since.elapsed() * REST).min(REST_MAX));
        }
        self.since = Instant::now();
        Ok(())
    }
}

/// The arenas of one field's index, each under the field's number.
struct FieldSink<'w, 'p, 's> {
    writer: &'w mut Paced<'p, 's>,
    number: usize,
}

fn field_arena(number: usize, arena: &str) -> String {
    format!("field{number}.{arena}")
}

impl ArenaSink for FieldSink<'_, '_, '_> {
    fn begin(&mut self, arena: &str) -> io::Result<()> {
        self.writer.begin_arena(&field_arena(self.number, arena))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write(bytes)
    }
}

// ---------------------------------------------------------------------------------------------------------- reading

struct FieldSource<'s> {
    snapshot: &'s Snapshot,
    number: usize,
    progress: &'s Progress,
}

/// One arena of a field, page by page.
struct FieldPages<'s> {
    pages: ArenaPages<'s>,
    progress: &'s Progress,
}

impl ArenaSource for FieldSource<'_> {
    fn open<'s>(&'s self, arena: &str) -> io::Result<Option<Box<dyn ArenaPieces + 's>>> {
        let pages = self.snapshot.pages(&field_arena(self.number, arena));
        let pages = pages.map(|pages| FieldPages { pages, progress: self.progress });
        Ok(pages.map(|pages| Box::new(pages) as Box<dyn ArenaPieces + 's>))
    }
}

fn memory_bytes(tables: &Tables, indexes: &Indexes) -> u64 {
    (tables.memory_bytes() + indexes.iter().map(|(_, index)| index.memory_bytes()).sum::<usize>()) as u64
}

/// What the indexes of a snapshot will take at least, by the number of their vectors. Codes come later, if there is room.
fn index_bytes(snapshot: &Snapshot, id: CollectionId, schema: &CollectionSchema) -> Result<u64, LoadError> {
    let mut bytes = 0;
    for (number, field) in schema.fields.values().enumerate() {
        let per_slot =
            Index::new(params(id, number, field)).map_err(vecino_index::LoadError::Index)?.bytes_per_slot_uncoded();
        let vectors = snapshot.open_arena(&field_arena(number, VECTORS))?;
        let slots =
            vectors.map_or(0, |vectors| vectors.len()) / (u64::from(field.dim) * size_of::<f32>() as u64).max(1);
        bytes += slots * per_slot as u64;
    }
    Ok(bytes)
}

impl ArenaPieces for FieldPages<'_> {
    fn bytes(&self) -> u64 {
        self.pages.bytes()
    }

    fn piece_bytes(&self) -> usize {
        PAGE_BYTES
    }

    fn read(&self, piece: u64, into: &mut Vec<u8>) -> io::Result<()> {
        self.pages.read(piece as usize, into)?;
        self.progress.add(into.len() as u64);
        Ok(())
    }
}

fn load(
    snapshot: &Snapshot,
    id: CollectionId,
    schema: &CollectionSchema,
    account: &Account,
    progress: &Progress,
) -> Result<(Tables, Indexes), LoadError> {
    progress.begin(Phase::Snapshot, snapshot.bytes());
    let Meta { format, collection, fields } = points::first(snapshot, META)?;
    if format > FORMAT {
        return Err(LoadError::Newer { found: format });
    }
    if collection != id || !fields.iter().eq(schema.fields.keys()) {
        return Err(LoadError::Foreign(format!("collection {collection} with fields {fields:?}")));
    }

    // Known before anything large is read, so that what does not fit costs little to find out, again and again.
    let index_bytes = index_bytes(snapshot, id, schema)?;
    account.open_with(index_bytes)?;
    let load_tables =
        || points::load(snapshot, id, progress, &|bytes: usize| account.open_with(index_bytes + bytes as u64));
    let load_index = |(number, (name, field)): (usize, (&String, &FieldSchema))| {
        let index = Index::load(params(id, number, field), &FieldSource { snapshot, number, progress })?;
        Ok((name.clone(), index))
    };
    let load_indexes = || schema.fields.iter().enumerate().map(load_index).collect::<Result<Indexes, LoadError>>();
    let (mut tables, indexes) = if snapshot.bytes() <= SMALL_BYTES {
        (load_tables()?, load_indexes()?)
    } else {
        // Tables and indexes are in different arenas: each is made while the other is read.
        let (tables, indexes) = std::thread::scope(|scope| {
            let tables = scope.spawn(load_tables);
            let indexes = load_indexes();
            (tables.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), indexes)
        });
        (tables?, indexes?)
    };
    for (_, index) in &indexes {
        for slot in (0..index.slots()).filter(|slot| tables.in_slot(*slot as Slot).is_none()) {
            index.bury(slot as Slot);
        }
        tables.skip_slots_below(index.slots());
    }
    Ok((tables, indexes))
}

/// What opening would say to what lies on disk, for those who look at it while no node runs.
pub struct Inspector<'a> {
    id: CollectionId,
    schema: &'a CollectionSchema,
    /// Without a vector in them: they know which would fit.
    indexes: Indexes,
}

impl<'a> Inspector<'a> {
    /// An inspector of one collection. Fails where the schema asks for what cannot be.
    pub fn new(id: CollectionId, schema: &'a CollectionSchema) -> Result<Self, OpenError> {
        Ok(Self { id, schema, indexes: empty_indexes(id, schema)? })
    }

    /// Reads a snapshot in full, as opening does; gives the number of live points, or says why it cannot be used.
    pub fn points(&self, snapshot: &Snapshot) -> Result<u64, String> {
        let account = Resources::unlimited().share("").account;
        let (tables, _) =
            load(snapshot, self.id, self.schema, &account, &Progress::default()).map_err(|error| error.to_string())?;
        Ok(tables.live() as u64)
    }

    /// Whether a record of the log decodes and fits the schema.
    pub fn check_record(&self, bytes: &[u8]) -> Result<(), String> {
        let Record { id: _, version: _, value } = record::decode(bytes).map_err(|error| error.to_string())?;
        let vectors = value.map(|RecordValue { vectors, payload: _ }| vectors).unwrap_or_default();
        let fitting = |(name, index): &(String, Index)| vectors.get(name).map_or(Ok(()), |v| index.validate(&v.0));
        self.indexes.iter().try_for_each(fitting).map_err(|error| error.to_string())
    }
}
