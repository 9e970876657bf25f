//! A replica of a collection on a simulated node: a map, or the engine over a disk in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use vecino_engine::LocalCollection;
use vecino_engine::SearchRequest;
use vecino_engine::resources::Resources;
use vecino_mesh::score;
use vecino_model::message::{ReplicaHits, ReplicaScan, ReplicaScanReply, ReplicaSearch};
use vecino_model::{
    CollectionId, CollectionSchema, Outcome, Parts, PointId, RawHit, Record, ScanCursor, Version, position,
};
use vecino_storage::{Disk, Fault, FaultyDisk, MemDisk};

/// Small, so that a log has several segments, and a full disk is felt soon.
const SEGMENT_BYTES: u64 = 8 * 1024;

/// What a node does with its own part of a collection.
pub(crate) trait Replica {
    /// Applies records, each if it is newer than what is there; flushed when it returns, unless the plan says otherwise.
    fn apply(&mut self, records: Vec<Record>) -> Vec<Outcome>;
    /// The version of each point.
    fn versions(&self, ids: &[PointId]) -> Vec<Option<Version>>;
    /// The record of each point.
    fn read(&self, ids: &[PointId], parts: Parts) -> Vec<Option<Record>>;
    /// The best hits.
    fn search(&self, request: &ReplicaSearch) -> ReplicaHits;
    /// A page.
    fn scan(&self, request: &ReplicaScan) -> ReplicaScanReply;
    /// Makes everything durable.
    fn flush(&mut self);
    /// The power goes.
    fn crash(&mut self, seed: u64);
    /// The power is back: opens what is on the disk, if that can be.
    fn open(&mut self);
    /// Why it cannot be asked, if it cannot.
    fn closed(&mut self) -> Option<String>;
    /// Every record, tombstones too.
    fn all(&self) -> Vec<Record>;
    /// What is on its disk, with a history of its own from here on.
    fn fork(&self) -> Box<dyn Replica>;
    /// A byte on its disk changes while it is off.
    fn damage(&mut self, random: &mut fastrand::Rng);
    /// Its disk has room for this number of bytes more.
    fn fill(&mut self, room: u64);
    /// Its disk has room.
    fn make_room(&mut self);
}

/// Which kind of replicas a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// The engine, with its log, snapshots and recovery; else a map.
    pub is_engine: bool,
    /// Whether what is applied is flushed before it is acknowledged.
    pub flushes_first: bool,
}

impl Kind {
    /// An empty replica.
    pub(crate) fn make(self, id: CollectionId, schema: &CollectionSchema) -> Box<dyn Replica> {
        if !self.is_engine {
            return Box::new(MapReplica::new(id, schema.clone(), self));
        }
        let mut schema = schema.clone();
        if !self.flushes_first {
            schema.fsync = vecino_model::Fsync::Never;
        }
        let mut replica = EngineReplica::on(MemDisk::new(), id, schema);
        replica.open();
        Box::new(replica)
    }
}

// ------------------------------------------------------------------------------------------------------------- a map

/// A replica that is a map: quick, and exact.
#[derive(Clone)]
struct MapReplica {
    id: CollectionId,
    schema: CollectionSchema,
    kind: Kind,
    records: BTreeMap<ScanCursor, Record>,
    /// What a crash leaves, where it is not everything.
    flushed: BTreeMap<ScanCursor, Record>,
    is_damaged: bool,
    is_full: bool,
}

impl MapReplica {
    fn new(id: CollectionId, schema: CollectionSchema, kind: Kind) -> Self {
        let (records, flushed) = (BTreeMap::new(), BTreeMap::new());
        Self { id, schema, kind, records, flushed, is_damaged: false, is_full: false }
    }

    fn cursor(&self, id: &PointId) -> ScanCursor {
        ScanCursor { position: position(self.id, id), id: id.clone() }
    }
}

impl Replica for MapReplica {
    fn apply(&mut self, records: Vec<Record>) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(records.len());
        for record in records {
            let at = self.cursor(&record.id);
            let outcome = match self.records.get(&at) {
                // There is room for deletes, which is kept for them.
                _ if self.is_full && record.value.is_some() => Outcome::Unavailable("the disk is full".to_owned()),
                Some(known) if known.version == record.version && known.value != record.value => {
                    Outcome::Refused("another value has this version".to_owned())
                }
                Some(known) if known.version >= record.version => Outcome::Written(known.version),
                _ => {
                    let version = record.version;
                    self.records.insert(at, record);
                    Outcome::Written(version)
                }
            };
            outcomes.push(outcome);
        }
        outcomes
    }

    fn versions(&self, ids: &[PointId]) -> Vec<Option<Version>> {
        ids.iter().map(|id| Some(self.records.get(&self.cursor(id))?.version)).collect()
    }

    fn read(&self, ids: &[PointId], parts: Parts) -> Vec<Option<Record>> {
        ids.iter().map(|id| Some(self.records.get(&self.cursor(id))?.clone().with_parts(parts))).collect()
    }

    fn search(&self, request: &ReplicaSearch) -> ReplicaHits {
        let Some(field) = self.schema.fields.get(&request.field) else {
            return ReplicaHits { hits: Vec::new(), horizon: None };
        };
        let mut hits: Vec<RawHit> = Vec::new();
        for record in self.records.values() {
            let Some(value) = &record.value else { continue };
            let Some(vector) = value.vectors.get(&request.field) else { continue };
            let score = score::score(field.metric, &request.vector, vector);
            if request.threshold.is_none_or(|least| score::is_as_good(field.metric, score, least)) {
                let vectors = if request.with_vectors { value.vectors.clone() } else { BTreeMap::new() };
                let payload = request.with_payload.then(|| value.payload.clone());
                hits.push(RawHit { id: record.id.clone(), score, version: record.version, payload, vectors });
            }
        }
        hits.sort_by(|a, b| {
            let order = a.score.total_cmp(&b.score);
            if field.metric.higher_is_better() { order.reverse() } else { order }
        });
        let horizon = (hits.len() >= request.k as usize).then(|| hits[request.k as usize - 1].score);
        hits.truncate(request.k as usize);
        ReplicaHits { hits, horizon }
    }

    fn scan(&self, request: &ReplicaScan) -> ReplicaScanReply {
        let behind = self.records.iter().filter(|(at, _)| request.after.as_ref().is_none_or(|after| *at > after));
        let records: Vec<Record> = behind
            .take(request.limit as usize + 1)
            .map(|(_, record)| record.clone().with_parts(request.parts))
            .collect();
        let end = records.len() <= request.limit as usize;
        ReplicaScanReply { records: records.into_iter().take(request.limit as usize).collect(), end }
    }

    fn flush(&mut self) {
        if !self.kind.flushes_first {
            self.flushed.clone_from(&self.records);
        }
    }

    fn crash(&mut self, _: u64) {
        if !self.kind.flushes_first {
            self.records.clone_from(&self.flushed);
        }
    }

    fn open(&mut self) {}

    fn closed(&mut self) -> Option<String> {
        self.is_damaged.then(|| "what is on its disk is damaged".to_owned())
    }

    fn all(&self) -> Vec<Record> {
        self.records.values().cloned().collect()
    }

    fn fork(&self) -> Box<dyn Replica> {
        Box::new(self.clone())
    }

    fn damage(&mut self, random: &mut fastrand::Rng) {
        // Some bytes matter to nobody, or are there twice.
        self.is_damaged |= random.bool();
    }

    fn fill(&mut self, _: u64) {
        self.is_full = true;
    }

    fn make_room(&mut self) {
        self.is_full = false;
    }
}

// -------------------------------------------------------------------------------------------------------- the engine

/// A replica that is the engine.
struct EngineReplica {
    disk: MemDisk,
    /// The same disk, which may be full.
    faulty: FaultyDisk,
    is_full: bool,
    id: CollectionId,
    schema: CollectionSchema,
    collection: Option<LocalCollection>,
    /// Why it could not be opened.
    failed: String,
    applied: u32,
}

/// Batches after which a snapshot is taken, and the log cut.
const BATCHES_PER_SNAPSHOT: u32 = 40;

impl EngineReplica {
    fn on(disk: MemDisk, id: CollectionId, schema: CollectionSchema) -> Self {
        let faulty = FaultyDisk::new(Arc::new(disk.clone()));
        Self { disk, faulty, is_full: false, id, schema, collection: None, failed: String::new(), applied: 0 }
    }

    fn collection(&self) -> &LocalCollection {
        self.collection.as_ref().expect("callers look first whether it is open")
    }
}

/// Every file below a folder, in order.
fn files_below(disk: &MemDisk, folder: &str) -> Vec<String> {
    let mut files = Vec::new();
    for name in disk.list(folder).unwrap_or_default() {
        let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        if disk.list(&path).is_ok() {
            files.extend(files_below(disk, &path));
        } else {
            files.push(path);
        }
    }
    files
}

impl Replica for EngineReplica {
    fn apply(&mut self, records: Vec<Record>) -> Vec<Outcome> {
        self.applied += 1;
        let is_due = self.applied.is_multiple_of(BATCHES_PER_SNAPSHOT);
        let collection = self.collection.as_mut().expect("callers look first whether it is open");
        let outcomes = collection.apply(records);
        collection.link(4);
        if is_due && let Err(error) = collection.snapshot() {
            assert!(self.is_full, "a snapshot cannot be taken: {error}");
        }
        outcomes
    }

    fn versions(&self, ids: &[PointId]) -> Vec<Option<Version>> {
        self.collection().versions(ids)
    }

    fn read(&self, ids: &[PointId], parts: Parts) -> Vec<Option<Record>> {
        self.collection().read_parts(ids, parts)
    }

    fn search(&self, request: &ReplicaSearch) -> ReplicaHits {
        let ReplicaSearch { collection: _, field, vector, k, ef, threshold, with_payload, with_vectors, exact } =
            request.clone();
        let request = SearchRequest { field, vector, k, ef, threshold, with_payload, with_vectors, exact };
        self.collection()
            .search_with_horizon(&request)
            .unwrap_or_else(|error| panic!("a search that was checked failed: {error}"))
    }

    fn scan(&self, request: &ReplicaScan) -> ReplicaScanReply {
        let after = request.after.as_ref().map(Into::into);
        let page = self.collection().scan_parts(after.as_ref(), request.limit as usize, request.parts);
        ReplicaScanReply { records: page.records, end: page.end }
    }

    fn flush(&mut self) {
        if let Some(Err(error)) = self.collection.as_mut().map(LocalCollection::flush) {
            assert!(self.is_full, "a disk in memory cannot be flushed: {error}");
        }
    }

    fn crash(&mut self, seed: u64) {
        self.collection = None;
        self.disk.crash(seed);
    }

    fn open(&mut self) {
        if self.collection.is_some() {
            return;
        }
        let share = Resources::unlimited().share("simulated");
        let (disk, schema) = (Arc::new(self.faulty.clone()), self.schema.clone());
        match LocalCollection::open(disk, "simulated", share, self.id, schema, SEGMENT_BYTES) {
            Ok(collection) => self.collection = Some(collection),
            Err(error) => self.failed = error.to_string(),
        }
    }

    fn closed(&mut self) -> Option<String> {
        // Where there was no room to open it there may be by now.
        self.open();
        self.collection.is_none().then(|| self.failed.clone())
    }

    fn all(&self) -> Vec<Record> {
        let all = |collection: &LocalCollection| collection.scan_parts(None, usize::MAX >> 1, Parts::ALL).records;
        self.collection.as_ref().map(all).unwrap_or_default()
    }

    fn fork(&self) -> Box<dyn Replica> {
        Box::new(Self::on(self.disk.fork(), self.id, self.schema.clone()))
    }

    fn damage(&mut self, random: &mut fastrand::Rng) {
        let files = files_below(&self.disk, "");
        let Some(path) = random.choice(&files) else { return };
        let Ok(file) = self.disk.open_read(path) else { return };
        let mut bytes = vec![0; file.len().unwrap_or(0) as usize];
        if file.read_at(&mut bytes, 0).is_err() {
            return;
        }
        // Room that nothing was written to yet is of no interest.
        let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        if let Some(at) = random.choice(&used) {
            self.disk.flip(path, *at as u64, 1 << random.u8(..8));
        }
    }

    fn fill(&mut self, room: u64) {
        self.is_full = true;
        self.faulty.set(Fault::Room(room));
    }

    fn make_room(&mut self) {
        self.is_full = false;
        self.faulty.heal();
    }
}
