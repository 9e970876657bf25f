//! A collection without threads: it is what a collection with threads is, it keeps what it acknowledged, and it is the
//! same every time.

use fastrand::Rng;

use super::*;
use crate::LocalCollection;

const ID: CollectionId = CollectionId([1; 16]);
const IDS: u64 = 40;
/// So small that a few batches fill a segment.
const SEGMENT: u64 = 4_000;

fn open_on(disk: Arc<dyn Disk>, schema: CollectionSchema) -> Result<LocalCollection, OpenError> {
    LocalCollection::open(disk, "films", Resources::unlimited().share("films"), ID, schema, SEGMENT)
}

fn open(disk: &MemDisk) -> LocalCollection {
    open_on(Arc::new(disk.clone()), schema()).unwrap()
}

/// What has to be there, by id.
type Oracle = BTreeMap<u64, Record>;

fn apply_to(oracle: &mut Oracle, records: &[Record]) {
    for record in records {
        let id: u64 = record.id.to_string().parse().unwrap();
        let known = oracle.entry(id).or_insert_with(|| record.clone());
        if known.version < record.version {
            *known = record.clone();
        }
    }
}

/// Puts and deletes. Some have older versions than the collection has, and some points are in the batch twice.
fn batch(random: &mut Rng, time: u64) -> Vec<Record> {
    let one = |_| {
        let (id, time) = (random.u64(0..IDS), random.u64(time.saturating_sub(60)..time) + 1);
        // A version is of one record.
        if (id + time).is_multiple_of(4) { delete(id, time) } else { put(id, time) }
    };
    (0..time % 9 + 1).map(one).collect()
}

/// Everything that is read of the collection is what the oracle says.
fn assert_holds(collection: &LocalCollection, oracle: &Oracle, context: &str) {
    let ids: Vec<PointId> = (0..IDS).map(PointId::Number).collect();
    let read = collection.read_parts(&ids, Parts::ALL);
    let there: Oracle = (0..).zip(read).filter_map(|(id, record)| Some((id, record?))).collect();
    assert!(there == *oracle, "{context}: {there:?} instead of {oracle:?}");
    let versions = (0..IDS).map(|id| oracle.get(&id).map(|record| record.version));
    assert_eq!(collection.versions(&ids), versions.collect::<Vec<_>>(), "{context}");
    assert_eq!(collection.newest_version(), oracle.values().map(|record| record.version).max(), "{context}");

    let (mut scanned, mut after) = (Vec::new(), None);
    loop {
        let Page { records, end } = collection.scan_parts(after.as_ref(), 7, Parts::ALL);
        scanned.extend(records);
        if end {
            break;
        }
        let id = scanned.last().unwrap().id.clone();
        after = Some(Key { position: position(ID, &id), id });
    }
    let mut in_ring_order: Vec<Record> = oracle.values().cloned().collect();
    in_ring_order.sort_by_key(|record| (position(ID, &record.id), record.id.clone()));
    assert!(scanned == in_ring_order, "{context}: the scan");

    let query = vec![0.5; DIM];
    let distance = |vector: &[f32]| vector.iter().zip(&query).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
    let live = oracle.values().filter_map(|record| Some((&record.id, &record.value.as_ref()?.vectors[""].0)));
    let mut nearest: Vec<(f32, &PointId)> = live.map(|(id, vector)| (distance(vector), id)).collect();
    nearest.sort_by(|a, b| a.0.total_cmp(&b.0));
    let hits = collection.search(&request(query.clone(), 1_000)).unwrap();
    let found: Vec<&PointId> = hits.iter().map(|hit| &hit.id).collect();
    assert_eq!(found, nearest.iter().map(|(_, id)| *id).collect::<Vec<_>>(), "{context}: the nearest");
    let stats = collection.stats();
    let tombstones = oracle.len() - nearest.len();
    assert_eq!((stats.points, stats.tombstones), (nearest.len() as u64, tombstones as u64), "{context}");
}

#[test]
fn it_agrees_with_a_collection_that_has_threads_and_with_an_oracle() {
    for seed in 0..30 {
        println!("seed {seed}");
        let (lab, disk, mut random) = (Lab::new(), MemDisk::new(), Rng::with_seed(seed));
        let (threaded, mut local, mut oracle) = (lab.open(), open(&disk), Oracle::new());
        for time in 1..random.u64(20..120) {
            let mut batch = batch(&mut random, time);
            if time % 10 == 0 {
                let mut short = put(IDS, time);
                short.value.as_mut().unwrap().vectors.insert(String::new(), Vector(vec![1.0]));
                batch.push(short);
            }
            let outcomes = local.apply(batch.clone());
            assert_eq!(outcomes, lab.apply(&threaded, batch.clone()));
            batch.retain(|record| record.id != IDS.into());
            apply_to(&mut oracle, &batch);
            for (record, outcome) in batch.iter().zip(&outcomes) {
                let Outcome::Written(version) = outcome else { panic!("{outcome:?}") };
                assert!(*version >= record.version);
            }
            match random.u8(0..20) {
                0 => _ = local.snapshot().unwrap(),
                1 => _ = local.link(8),
                2 => local = open(&disk),
                _ => {}
            }
        }
        assert_holds(&local, &oracle, "at the end");
        let ids: Vec<PointId> = (0..=IDS).map(PointId::Number).collect();
        assert_eq!(local.read_parts(&ids, Parts::ALL), threaded.read(&ids));
        assert_eq!(local.scan_parts(None, 1_000, Parts::ALL).records, threaded.scan(None, 1_000).records);
        let query = request(vector(1, 1), 10);
        let scores = |hits: Vec<RawHit>| hits.into_iter().map(|hit| (hit.id, hit.score)).collect::<Vec<_>>();
        assert_eq!(scores(local.search(&query).unwrap()), scores(threaded.search(&query).unwrap()));
    }
}

#[test]
fn what_was_acknowledged_is_there_after_power_cuts_between_batches() {
    let mut sectors_lost = 0;
    for seed in 0..60 {
        let (disk, mut random, mut oracle) = (MemDisk::new(), Rng::with_seed(seed), Oracle::new());
        let mut collection = open(&disk);
        for time in 1..150 {
            let batch = batch(&mut random, time);
            let outcomes = collection.apply(batch.clone());
            assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Written(_))), "{outcomes:?}");
            apply_to(&mut oracle, &batch);
            match random.u8(0..12) {
                0 => _ = collection.snapshot().unwrap(),
                1 => {
                    sectors_lost += disk.crash(random.u64(..)).sectors_lost;
                    collection = open(&disk);
                    assert_holds(&collection, &oracle, &format!("seed {seed}, after {time} batches"));
                }
                _ => {}
            }
        }
    }
    assert!(sectors_lost > 0, "the power cuts took something");
}

#[test]
fn a_power_cut_in_the_middle_leaves_what_was_acknowledged_and_a_batch_in_full_or_not_at_all() {
    let (mut cuts, mut in_full) = (0, 0);
    for seed in 0..400 {
        let (memory, mut random, mut oracle) = (MemDisk::new(), Rng::with_seed(seed), Oracle::new());
        let disk = FaultyDisk::new(Arc::new(memory.clone()));
        let mut in_doubt = Vec::new();
        let mut collection = open_on(Arc::new(disk.clone()), schema()).unwrap();
        disk.set(Fault::Halt { at: disk.operations() + random.u64(1..200), done: random.bool() });
        for time in 1..200 {
            if random.u8(0..10) == 0 && collection.snapshot().is_err() {
                break;
            }
            let batch = batch(&mut random, time);
            let outcomes = collection.apply(batch.clone());
            let is_written = |outcome: &Outcome| matches!(outcome, Outcome::Written(_));
            // A record that is older than the collection's version is answered without the disk.
            let new: Vec<Record> = batch
                .into_iter()
                .filter(|record| oracle.get(&number(record)).is_none_or(|known| known.version < record.version))
                .collect();
            if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Unknown(_))) {
                in_doubt = new;
                break;
            }
            if !outcomes.iter().all(is_written) {
                break;
            }
            apply_to(&mut oracle, &new);
        }
        drop(collection);
        memory.crash(random.u64(..));
        cuts += 1;
        let context = format!("seed {seed}");
        let mut collection = open(&memory);
        let mut with_batch = oracle.clone();
        apply_to(&mut with_batch, &in_doubt);
        let ids: Vec<PointId> = (0..IDS).map(PointId::Number).collect();
        let versions = (0..IDS).map(|id| with_batch.get(&id).map(|record| record.version));
        if !in_doubt.is_empty() && collection.versions(&ids) == versions.collect::<Vec<_>>() {
            oracle = with_batch;
            in_full += 1;
        }
        assert_holds(&collection, &oracle, &context);
        collection.snapshot().unwrap();
        assert_eq!(collection.apply(vec![put(1, 1_000)]), [Outcome::Written(version(1_000))], "{context}");
    }
    println!("{cuts} power cuts, {in_full} batches in doubt that were there");
    assert!(in_full > 10, "{in_full} of {cuts}");
}

fn number(record: &Record) -> u64 {
    record.id.to_string().parse().unwrap()
}

/// The control: were the flushes left out, the tests above would notice.
#[test]
fn a_disk_that_does_not_flush_loses_what_was_acknowledged() {
    let lost = (0..20).filter(|seed| {
        let memory = MemDisk::new();
        let disk = FaultyDisk::new(Arc::new(memory.clone()));
        disk.set(Fault::LyingSync);
        open_on(Arc::new(disk), schema()).unwrap().apply((0..IDS).map(|id| put(id, id + 1)).collect());
        memory.crash(*seed);
        let Ok(collection) = open_on(Arc::new(memory), schema()) else { return true };
        collection.stats().points < IDS
    });
    assert!(lost.count() >= 10);
}

#[test]
fn a_snapshot_and_a_cut_log_open_to_the_same() {
    let (disk, mut random, mut oracle) = (MemDisk::new(), Rng::with_seed(3), Oracle::new());
    let mut collection = open(&disk);
    let mut write = |collection: &mut LocalCollection, times: std::ops::Range<u64>| {
        for time in times {
            let batch = batch(&mut random, time);
            collection.apply(batch.clone());
            apply_to(&mut oracle, &batch);
        }
        oracle.clone()
    };
    write(&mut collection, 1..200);
    let segments = |disk: &MemDisk| disk.list("films/log").unwrap();
    let (before, log_bytes) = (segments(&disk), collection.stats().log_bytes);
    collection.snapshot().unwrap();
    let summary = collection.snapshot().unwrap();
    assert_eq!((collection.stats().snapshot_lsn, collection.replay_records()), (summary.lsn, 0));
    let after = segments(&disk);
    assert!(before.len() > 3 && after.len() < before.len() && !after.contains(&before[0]), "{before:?} {after:?}");
    assert!(collection.stats().log_bytes < log_bytes / 2);
    let oracle = write(&mut collection, 200..210);
    drop(collection);
    disk.crash(1);
    let collection = open(&disk);
    assert_eq!(collection.stats().snapshot_lsn, summary.lsn, "it was opened from the snapshot");
    assert!((1..=90).contains(&collection.replay_records()), "{}", collection.replay_records());
    assert_holds(&collection, &oracle, "from the snapshot");
}

#[test]
fn what_a_schema_does_not_flush_is_durable_after_a_flush() {
    let schema = CollectionSchema { fsync: Fsync::Never, ..schema() };
    let disk = MemDisk::new();
    let mut lost = 0;
    for time in 1..60 {
        let mut collection = open_on(Arc::new(disk.clone()), schema.clone()).unwrap();
        collection.apply(vec![put(1, 2 * time)]);
        collection.flush().unwrap();
        collection.apply(vec![put(1, 2 * time + 1)]);
        drop(collection);
        disk.crash(time);
        let there = open_on(Arc::new(disk.clone()), schema.clone()).unwrap().versions(&[1.into()]);
        assert!([2 * time, 2 * time + 1].map(|time| vec![Some(version(time))]).contains(&there), "{there:?}");
        lost += u32::from(there == [Some(version(2 * time))]);
    }
    assert!(lost > 10, "dropping a collection flushes nothing");
}

#[test]
fn after_a_failed_flush_the_next_batch_is_taken_without_a_wait() {
    let disk = MemDisk::new();
    let mut collection = open(&disk);
    for time in 1..20 {
        disk.fail_flush(1);
        let failed = collection.apply(vec![put(1, 2 * time)]);
        assert!(matches!(&failed[..], [Outcome::Unknown(_)]), "{failed:?}");
        assert_eq!(collection.apply(vec![put(1, 2 * time + 1)]), [Outcome::Written(version(2 * time + 1))]);
        assert_holds(&collection, &Oracle::from([(1, put(1, 2 * time + 1))]), "after a failed flush");
    }
}

/// A schema of which few points make a graph.
fn wide() -> CollectionSchema {
    let mut schema = schema();
    schema.fields.get_mut("").unwrap().dim = 1_100;
    schema
}

fn put_wide(id: u64) -> Record {
    let mut record = put(id, id + 1);
    let mut random = Rng::with_seed(id);
    let vector = Vector((0..1_100).map(|_| random.f32()).collect());
    record.value.as_mut().unwrap().vectors.insert(String::new(), vector);
    record
}

fn found(collection: &LocalCollection, id: u64) -> Vec<(PointId, f32)> {
    let vector = put_wide(id).value.unwrap().vectors[""].0.clone();
    let hits = collection.search(&request(vector, 5)).unwrap();
    hits.into_iter().map(|hit| (hit.id, hit.score)).collect()
}

#[test]
fn points_are_found_before_they_are_linked_and_linked_when_asked_for() {
    let mut collection = open_on(Arc::new(MemDisk::new()), wide()).unwrap();
    collection.apply((0..1_200).map(put_wide).collect());
    let all_are_found = |collection: &LocalCollection| {
        for id in (0..1_200).step_by(29) {
            assert_eq!(found(collection, id)[0], (id.into(), 0.0));
        }
    };
    assert_eq!(collection.stats().unlinked, 1_200);
    all_are_found(&collection);
    assert!(collection.link(100));
    assert_eq!(collection.stats().unlinked, 1_100);
    all_are_found(&collection);
    while collection.link(100) {}
    assert_eq!(collection.stats().unlinked, 0);
    all_are_found(&collection);
    // What was deleted leaves the graph, and its slots are used again.
    let slots = collection.core().tables().slots();
    for id in 0..40 {
        collection.apply(vec![delete(id, 2_000)]);
    }
    while collection.link(100) {}
    collection.apply((2_000..2_030).map(put_wide).collect());
    assert_eq!((collection.core().tables().slots(), found(&collection, 2_007)[0].0.clone()), (slots, 2_007.into()));
}

/// Every file of a disk with what is in it.
fn files(disk: &MemDisk, directory: &str) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for name in disk.list(directory).unwrap() {
        let path = format!("{directory}/{name}");
        match disk.open_read(&path) {
            Ok(file) => {
                let mut bytes = vec![0; file.len().unwrap() as usize];
                file.read_at(&mut bytes, 0).unwrap();
                found.insert(path, bytes);
            }
            Err(_) => found.append(&mut files(disk, &path)),
        }
    }
    found
}

#[test]
fn the_same_life_twice_gives_the_same_disk_and_the_same_hits() {
    let life = || {
        let disk = MemDisk::new();
        let mut collection = open_on(Arc::new(disk.clone()), wide()).unwrap();
        let mut hits = Vec::new();
        for first in (0..1_200).step_by(100) {
            collection.apply((first..first + 100).map(put_wide).collect());
            collection.apply((first..first + 10).map(|id| delete(id, 3_000)).collect());
            while collection.link(30) {}
            if first % 400 == 0 {
                collection.snapshot().unwrap();
                disk.crash(first);
                collection = open_on(Arc::new(disk.clone()), wide()).unwrap();
            }
            hits.push(found(&collection, first + 50));
        }
        (files(&disk, "films"), hits)
    };
    let (once, again) = (life(), life());
    assert_eq!(once.1, again.1);
    assert!(once.0.len() > 5 && once.0 == again.0, "{:?} and {:?}", once.0.keys(), again.0.keys());
}

#[test]
fn a_thousand_are_opened_and_dropped_at_little_cost() {
    let resources = Resources::unlimited();
    for seed in 0..1_000 {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let mut collection =
            LocalCollection::open(disk, "films", resources.share("films"), ID, schema(), 64 * 1024).unwrap();
        collection.apply(vec![put(seed, 1)]);
        let bytes = collection.stats().memory_bytes;
        assert!(bytes < 64 * 1024, "{bytes} bytes for one point");
    }
    assert_eq!(resources.memory.used(), 0, "dropped ones take nothing");
}

#[test]
fn what_it_is_made_of_names_no_thread_no_channel_and_no_indexers() {
    let sources = [
        ("local.rs", include_str!("../local.rs")),
        ("writer.rs", include_str!("../writer.rs")),
        ("group.rs", include_str!("../group.rs")),
        ("core.rs", include_str!("../core.rs")),
        ("linking.rs", include_str!("../linking.rs")),
        ("slots.rs", include_str!("../slots.rs")),
        ("tables.rs", include_str!("../tables.rs")),
        ("reads/scan.rs", include_str!("../reads/scan.rs")),
        ("reads/search.rs", include_str!("../reads/search.rs")),
        ("reads/stats.rs", include_str!("../reads/stats.rs")),
    ];
    for (file, source) in sources {
        for name in ["tokio", "mpsc", "std::thread", "indexers::"] {
            assert!(!source.contains(name), "{file} names {name}");
        }
    }
}

#[test]
fn a_version_belongs_to_one_value() {
    let mut collection = open(&MemDisk::new());
    let mut random = Rng::with_seed(5);
    let record = batch(&mut random, 7).into_iter().find(|record| record.value.is_some()).unwrap();
    let written = Outcome::Written(record.version);
    assert_eq!(collection.apply(vec![record.clone()]), std::slice::from_ref(&written));
    assert_eq!(collection.apply(vec![record.clone()]), [written], "the same again is what is there");
    let other = Record { value: None, ..record.clone() };
    let refused = collection.apply(vec![other]).pop().unwrap();
    assert!(matches!(&refused, Outcome::Refused(reason) if reason.contains("another value")), "{refused:?}");
    assert_eq!(collection.read_parts(std::slice::from_ref(&record.id), Parts::ALL), [Some(record)]);
}
