//! A collection over a disk in memory: what is acknowledged is there, searchable, and back after a power cut.

use std::collections::BTreeMap;

use vecino_model::{
    CollectionId, CollectionSchema, FieldSchema, Fields, Fsync, Metric, NodeId, Outcome, Parts, Payload, PointId,
    RawHit, RawPayload, Record, RecordValue, Value, Vector, Version, position,
};
use vecino_storage::{Fault, FaultyDisk, MemDisk};

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vecino_storage::Disk;

use crate::collection::Collection;
use crate::indexers::Indexers;
use crate::key::Key;
use crate::persist::OpenError;
use crate::persist::opening::{self, Opened};
use crate::progress::Progress;
use crate::reads::{Page, SCAN_BYTES, SearchRequest};
use crate::resources::Resources;

mod agreement;
mod churn;
mod crash;
mod limits;
mod local;
mod optional;
mod quarantine;

const DIM: usize = 8;

fn schema() -> CollectionSchema {
    let field = FieldSchema {
        dim: DIM as u32,
        metric: Metric::Euclidean,
        m: 8,
        ef_construction: 40,
        profile: Default::default(),
    };
    CollectionSchema { fields: BTreeMap::from([(String::new(), field)]), replication_factor: 1, fsync: Fsync::Always }
}

struct Lab {
    disk: MemDisk,
    runtime: tokio::runtime::Runtime,
    indexers: Arc<Indexers>,
}

impl Lab {
    fn new() -> Self {
        Self {
            disk: MemDisk::new(),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            indexers: Arc::new(Indexers::start(1).unwrap()),
        }
    }

    fn open(&self) -> Collection {
        self.open_with(Fsync::Always)
    }

    fn open_with(&self, fsync: Fsync) -> Collection {
        Collection::open(
            Arc::new(self.disk.clone()),
            "films",
            Resources::unlimited().share("films"),
            CollectionId([1; 16]),
            CollectionSchema { fsync, ..schema() },
            Arc::clone(&self.indexers),
            self.runtime.handle().clone(),
        )
        .unwrap()
    }

    fn apply(&self, collection: &Collection, records: Vec<Record>) -> Vec<Outcome> {
        self.runtime.block_on(collection.apply(records)).unwrap()
    }
}

fn version(time: u64) -> Version {
    Version { time, node: NodeId::from_bytes([3; 16]), seq: 0 }
}

/// A vector that only this id and time have.
fn vector(id: u64, time: u64) -> Vec<f32> {
    let mut random = fastrand::Rng::with_seed(id << 20 | time);
    (0..DIM).map(|_| random.f32()).collect()
}

fn put(id: u64, time: u64) -> Record {
    let value = RecordValue {
        vectors: Fields::from([(String::new(), Vector(vector(id, time)))]),
        payload: Payload::from([("time".to_owned(), Value::Int(time as i64))]).into(),
    };
    Record { id: id.into(), version: version(time), value: Some(value) }
}

fn delete(id: u64, time: u64) -> Record {
    Record { id: id.into(), version: version(time), value: None }
}

fn request(vector: Vec<f32>, k: u32) -> SearchRequest {
    SearchRequest {
        field: String::new(),
        vector: Vector(vector),
        k,
        ef: 64,
        threshold: None,
        with_payload: true,
        with_vectors: true,
        exact: false,
    }
}

fn nearest(collection: &Collection, vector: Vec<f32>, k: u32) -> Vec<RawHit> {
    collection.search(&request(vector, k)).unwrap()
}

/// Every id of the oracle is readable and found by its own vector; what was deleted is neither.
fn check(collection: &Collection, oracle: &BTreeMap<u64, Record>) {
    for (id, record) in oracle {
        let read = collection.read(&[(*id).into()]).remove(0).unwrap_or_else(|| panic!("{id} is gone"));
        assert_eq!(&read, record);
        assert_eq!(collection.versions(&[(*id).into()]), [Some(record.version)]);
        if let Some(value) = &record.value {
            let hits = nearest(collection, value.vectors[""].0.clone(), 1);
            assert_eq!((&hits[0].id, hits[0].score), (&PointId::Number(*id), 0.0));
            assert_eq!(hits[0].vectors, value.vectors);
        }
    }
    let live = oracle.values().filter(|record| record.value.is_some()).count();
    assert_eq!(nearest(collection, vec![0.0; DIM], 10_000).len(), live);
    let stats = collection.stats();
    assert_eq!((stats.points, stats.tombstones), (live as u64, (oracle.len() - live) as u64));
}

#[test]
fn records_are_applied_only_if_newer_and_refused_if_they_do_not_fit() {
    let lab = Lab::new();
    let collection = lab.open();
    let mut short = put(2, 1);
    short.value.as_mut().unwrap().vectors.insert(String::new(), Vector(vec![1.0]));
    let outcomes = lab.apply(&collection, vec![put(1, 5), put(1, 4), short, put(1, 6)]);
    assert_eq!(outcomes[..2], [Outcome::Written(version(5)), Outcome::Written(version(5))]);
    assert_eq!(outcomes[2], Outcome::Refused("the vector has dimension 1, and the schema says 8".into()));
    assert_eq!(outcomes[3], Outcome::Written(version(6)));
    assert_eq!(lab.apply(&collection, vec![delete(1, 5)]), [Outcome::Written(version(6))]);
    check(&collection, &BTreeMap::from([(1, put(1, 6))]));
}

#[test]
fn a_payload_that_no_snapshot_could_hold_is_refused_before_it_is_logged() {
    let lab = Lab::new();
    let collection = lab.open();
    let with_payload = |bytes: usize| {
        let mut record = put(1, 1);
        let head = [&[0x81, 0xa1, b'k', 0xdb][..], &(bytes as u32 - 8).to_be_bytes()].concat();
        let payload = [head, vec![b'x'; bytes - 8]].concat();
        record.value.as_mut().unwrap().payload = RawPayload::from_bytes(payload);
        record
    };
    for bytes in [vecino_model::limits::PAYLOAD_BYTES_MAX + 1, 2 * crate::record::ENTRY_BYTES_MAX] {
        let told = format!("payload has {bytes} bytes as MessagePack: at most 65536 are allowed");
        let outcomes = lab.apply(&collection, vec![with_payload(bytes)]);
        assert!(matches!(&outcomes[..], [Outcome::Refused(reason)] if reason.starts_with(&told)), "{outcomes:?}");
    }
    lab.apply(&collection, vec![with_payload(vecino_model::limits::PAYLOAD_BYTES_MAX)]);
    collection.snapshot().unwrap();
    collection.close();
    drop(collection);
    assert_eq!(lab.open().read(&[1.into()]), [Some(with_payload(vecino_model::limits::PAYLOAD_BYTES_MAX))]);
}

#[test]
fn a_damaged_payload_is_an_error_and_not_an_empty_payload() {
    let lab = Lab::new();
    let collection = lab.open();
    let mut record = put(7, 1);
    record.value.as_mut().unwrap().payload = RawPayload::from_bytes([0x81, 0xa1]);
    let refused = lab.apply(&collection, vec![record.clone()]);
    assert!(matches!(&refused[..], [Outcome::Refused(reason)] if reason.contains("ends before")), "{refused:?}");
    // As an older node, which did not look into payloads, may have stored it.
    let key = collection.core.key(&record.id);
    let value = record.value.unwrap();
    collection.core.fields.store(0, &value.vectors).unwrap();
    let live = Some((0, value.payload.into_bytes()));
    collection.core.tables.write().unwrap().apply(key, record.version, live).unwrap();
    let mut request = request(vector(7, 1), 1);
    let told = collection.search(&request).unwrap_err().to_string();
    assert!(told.contains("payload of point 7 at version") && told.contains("put the point again"), "{told}");
    request.with_payload = false;
    assert_eq!(collection.search(&request).unwrap().len(), 1);
}

#[test]
fn acknowledged_writes_are_back_after_a_power_cut_from_log_and_from_snapshot() {
    for seed in 0..20 {
        println!("seed {seed}");
        let lab = Lab::new();
        let mut random = fastrand::Rng::with_seed(seed);
        let mut oracle = BTreeMap::new();
        let mut time = 0;
        for _ in 0..4 {
            let collection = lab.open();
            check(&collection, &oracle);
            for _ in 0..random.usize(1..6) {
                let batch: Vec<_> = (0..random.usize(1..50))
                    .map(|_| {
                        time += 1;
                        let id = random.u64(0..100);
                        if random.u8(0..4) == 0 { delete(id, time) } else { put(id, time) }
                    })
                    .collect();
                lab.apply(&collection, batch.clone());
                oracle.extend(batch.into_iter().map(|record| {
                    let PointId::Number(id) = record.id else { unreachable!("ids are numbers") };
                    (id, record)
                }));
                if random.u8(0..3) == 0 {
                    let lsn = collection.snapshot().unwrap().lsn;
                    assert_eq!(collection.replay_records(), time + 1 - lsn);
                }
            }
            check(&collection, &oracle);
            collection.close();
            lab.disk.crash(random.u64(..));
        }
        check(&lab.open(), &oracle);
    }
}

#[test]
fn a_snapshot_beside_writers_loses_nothing_and_the_log_is_cut_behind_it() {
    let lab = Lab::new();
    let mut oracle = BTreeMap::new();
    let collection = lab.open();
    let snapshots = std::thread::spawn({
        let collection = collection.clone();
        move || {
            let mut lsns = vec![collection.snapshot().unwrap().lsn];
            while *lsns.last().unwrap() < 2_000 {
                lsns.push(collection.snapshot().unwrap().lsn);
            }
            lsns
        }
    });
    let mut time = 0;
    while !snapshots.is_finished() {
        let batch: Vec<_> = (0..50)
            .map(|step| {
                time += 1;
                if step % 5 == 0 { delete(time % 700, time) } else { put(time % 700, time) }
            })
            .collect();
        lab.apply(&collection, batch.clone());
        oracle.extend(batch.into_iter().map(|record| {
            let PointId::Number(id) = record.id else { unreachable!("ids are numbers") };
            (id, record)
        }));
    }
    let lsns = snapshots.join().unwrap();
    assert!(lsns.windows(2).all(|pair| pair[0] <= pair[1]), "{lsns:?}");
    collection.close();
    drop(collection);
    lab.disk.crash(7);
    let reopened = lab.open();
    check(&reopened, &oracle);
    assert!(reopened.replay_records() <= time - 2_000, "the newest snapshot was used");
}

#[test]
fn a_snapshot_is_never_ahead_of_a_log_that_flushes_when_it_likes() {
    let lab = Lab::new();
    let collection = lab.open_with(Fsync::Never);
    lab.apply(&collection, (0..100).map(|id| put(id, id + 1)).collect());
    assert_eq!(collection.snapshot().unwrap().lsn, 101);
    // What comes after the snapshot may be lost, what came before it is not, and the collection opens.
    lab.apply(&collection, (100..200).map(|id| put(id, id + 1)).collect());
    lab.disk.crash(3);
    std::mem::forget(collection);
    let reopened = lab.open_with(Fsync::Never);
    for id in 0..100 {
        assert_eq!(reopened.read(&[id.into()]), [Some(put(id, id + 1))]);
    }
}

#[test]
fn a_point_overwritten_during_a_snapshot_is_not_lost_with_the_unflushed_overwrite() {
    const POINTS: u64 = 8_000;
    for seed in 0..5 {
        println!("seed {seed}");
        let lab = Lab::new();
        let collection = lab.open_with(Fsync::Never);
        lab.apply(&collection, (0..POINTS).map(|id| put(id, id + 1)).collect());
        let snapshot = std::thread::spawn({
            let collection = collection.clone();
            move || collection.snapshot().unwrap()
        });
        // The snapshot copies from the first slot on, so the last ones are overwritten before it gets there.
        let mut ids = (0..POINTS).rev();
        while !snapshot.is_finished() {
            let batch: Vec<_> = ids.by_ref().take(20).map(|id| put(id, POINTS + 1)).collect();
            lab.apply(&collection, batch);
        }
        snapshot.join().unwrap();
        lab.disk.crash(seed);
        std::mem::forget(collection);
        let reopened = lab.open_with(Fsync::Never);
        let lost = (0..POINTS).filter(|id| reopened.read(&[(*id).into()])[0].is_none()).count();
        assert_eq!(lost, 0, "their first versions were durable");
    }
}

#[test]
fn a_failed_flush_refuses_that_batch_and_the_next_one_is_taken_again() {
    for seed in 0..20 {
        println!("seed {seed}");
        let lab = Lab::new();
        let collection = lab.open();
        lab.apply(&collection, vec![put(1, 1)]);
        lab.disk.fail_flush(1);
        let failed = lab.apply(&collection, vec![put(2, 2), put(1, 2)]);
        assert!(failed.iter().all(|outcome| matches!(outcome, Outcome::Unknown(_))), "{failed:?}");
        lab.apply(&collection, vec![put(3, 3)]);
        // What was in doubt is all there or not at all, now and after a power cut, and the same both times.
        let ids = [1, 2, 3].map(PointId::Number);
        let read = collection.read(&ids);
        let in_doubt = [Some(put(1, 2)), Some(put(2, 2)), Some(put(3, 3))];
        let without = [Some(put(1, 1)), None, Some(put(3, 3))];
        assert!(read == in_doubt || read == without, "{read:?}");
        std::mem::forget(collection);
        lab.disk.crash(seed);
        assert_eq!(lab.open().read(&ids), read);
    }
}

#[test]
fn a_full_disk_refuses_puts_until_there_is_room_and_reads_go_on() {
    let lab = Lab::new();
    let faulty = FaultyDisk::new(Arc::new(lab.disk.clone()));
    faulty.set(Fault::CannotReserve);
    let collection = Collection::open(
        Arc::new(faulty.clone()),
        "films",
        Resources::unlimited().share("films"),
        CollectionId([1; 16]),
        schema(),
        Arc::clone(&lab.indexers),
        lab.runtime.handle().clone(),
    )
    .unwrap();
    lab.apply(&collection, vec![put(1, 1)]);
    faulty.set(Fault::Room(0));
    for _ in 0..3 {
        let refused = lab.apply(&collection, vec![put(2, 2)]);
        assert!(
            matches!(&refused[0], Outcome::Unavailable(reason) if reason.contains("the disk is full")),
            "{refused:?}"
        );
        assert_eq!(collection.read(&[1.into(), 2.into()]), [Some(put(1, 1)), None]);
        assert_eq!(nearest(&collection, vector(1, 1), 1)[0].id, 1.into());
    }
    faulty.heal();
    lab.apply(&collection, vec![put(2, 3)]);
    check(&collection, &BTreeMap::from([(1, put(1, 1)), (2, put(2, 3))]));
}

#[test]
fn a_page_of_large_records_ends_early_and_the_next_goes_on() {
    let lab = Lab::new();
    let collection = lab.open();
    let large = |id| {
        let mut record = put(id, id + 1);
        record.value.as_mut().unwrap().payload =
            Payload::from([("text".to_owned(), Value::Text("x".repeat(60_000)))]).into();
        record
    };
    lab.apply(&collection, (0..200).map(large).collect());
    let (mut after, mut seen) = (None, 0);
    loop {
        let page = collection.scan(after.as_ref(), 1_000);
        assert!(page.records.iter().map(Record::bytes).sum::<usize>() < SCAN_BYTES + 61_000);
        seen += page.records.len();
        let Some(last) = page.records.last() else { break };
        after = Some(Key { position: position(collection.id(), &last.id), id: last.id.clone() });
        if page.end {
            break;
        }
    }
    assert_eq!(seen, 200);
}

#[test]
fn a_graph_is_loaded_and_not_linked_again() {
    let lab = Lab::new();
    let collection = lab.open();
    // Enough for a graph.
    lab.apply(&collection, (0..10_200).map(|id| put(id, id + 1)).collect());
    while collection.unlinked() > 0 {
        std::thread::yield_now();
    }
    collection.snapshot().unwrap();
    collection.close();
    drop(collection);
    // Nobody links here, so what is unlinked after opening stays so.
    let idle = Arc::new(Indexers::start(1).unwrap());
    let (disk, share) = (Arc::new(lab.disk.clone()), Resources::unlimited().share("films"));
    let progress = Progress::default();
    let opened = opening::recover(disk, "films", CollectionId([1; 16]), &schema(), 1 << 20, share, &progress).unwrap();
    drop(idle);
    assert_eq!(opened.fields.unlinked(), 0);
    assert_eq!(opened.tables.live(), 10_200);
    assert_eq!(opened.snapshot_lsn, 10_201);
}
