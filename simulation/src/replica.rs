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
use vecino_storage::MemDisk;

/// Small, so that a log has several segments.
const SEGMENT_BYTES: u64 = 64 * 1024;

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
    /// The power goes, and comes back.
    fn crash(&mut self, seed: u64);
    /// Every record, tombstones too.
    fn all(&self) -> Vec<Record>;
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
            return Box::new(MapReplica { id, schema: schema.clone(), kind: self, ..MapReplica::default_of(id) });
        }
        let mut schema = schema.clone();
        if !self.flushes_first {
            schema.fsync = vecino_model::Fsync::Never;
        }
        let disk = MemDisk::new();
        let collection = open(&disk, id, &schema);
        Box::new(EngineReplica { disk, id, schema, collection: Some(collection), applied: 0 })
    }
}

// ------------------------------------------------------------------------------------------------------------- a map

/// A replica that is a map: quick, and exact.
struct MapReplica {
    id: CollectionId,
    schema: CollectionSchema,
    kind: Kind,
    records: BTreeMap<ScanCursor, Record>,
    /// What a crash leaves, where it is not everything.
    flushed: BTreeMap<ScanCursor, Record>,
}

impl MapReplica {
    fn default_of(id: CollectionId) -> Self {
        let schema =
            CollectionSchema { fields: BTreeMap::new(), replication_factor: 1, fsync: vecino_model::Fsync::Always };
        let kind = Kind { is_engine: false, flushes_first: true };
        Self { id, schema, kind, records: BTreeMap::new(), flushed: BTreeMap::new() }
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

    fn all(&self) -> Vec<Record> {
        self.records.values().cloned().collect()
    }
}

// -------------------------------------------------------------------------------------------------------- the engine

/// A replica that is the engine.
struct EngineReplica {
    disk: MemDisk,
    id: CollectionId,
    schema: CollectionSchema,
    collection: Option<LocalCollection>,
    applied: u32,
}

/// Batches after which a snapshot is taken, and the log cut.
const BATCHES_PER_SNAPSHOT: u32 = 40;

fn open(disk: &MemDisk, id: CollectionId, schema: &CollectionSchema) -> LocalCollection {
    let share = Resources::unlimited().share("simulated");
    let opened = LocalCollection::open(Arc::new(disk.clone()), "simulated", share, id, schema.clone(), SEGMENT_BYTES);
    opened.unwrap_or_else(|error| panic!("a collection does not open after a crash: {error}"))
}

impl EngineReplica {
    fn collection(&self) -> &LocalCollection {
        self.collection.as_ref().expect("it is open but for a moment")
    }
}

impl Replica for EngineReplica {
    fn apply(&mut self, records: Vec<Record>) -> Vec<Outcome> {
        self.applied += 1;
        let is_due = self.applied.is_multiple_of(BATCHES_PER_SNAPSHOT);
        let collection = self.collection.as_mut().expect("it is open but for a moment");
        let outcomes = collection.apply(records);
        collection.link(4);
        if is_due {
            collection.snapshot().unwrap_or_else(|error| panic!("a snapshot cannot be taken: {error}"));
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
        let collection = self.collection.as_mut().expect("it is open but for a moment");
        collection.flush().unwrap_or_else(|error| panic!("a disk in memory cannot be flushed: {error}"));
    }

    fn crash(&mut self, seed: u64) {
        self.disk.crash(seed);
        self.collection = None;
        self.collection = Some(open(&self.disk, self.id, &self.schema));
    }

    fn all(&self) -> Vec<Record> {
        self.collection().scan_parts(None, usize::MAX >> 1, Parts::ALL).records
    }
}
