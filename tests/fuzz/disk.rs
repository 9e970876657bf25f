//! Readers of files: log, snapshots, small files, and a whole collection.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, LazyLock};

use fastrand::Rng;
use vecino_engine::hints::{HINTS, HintLimits, HintLogs};
use vecino_engine::indexers::Indexers;
use vecino_engine::{Collection, SearchRequest};
use vecino_model::{
    CollectionId, CollectionSchema, FieldSchema, Fields, Fsync, Metric, NodeId, Record, RecordValue, Vector, Version,
};
use vecino_storage::{
    Disk, Log, LogOptions, MemDisk, SnapshotStore, SyncPolicy, inspect, read_verified, write_atomically,
};

use crate::fuzz;
use crate::mutate::{mend_hashed, mend_segment, mend_small_file, mutate};

type Files = BTreeMap<String, Vec<u8>>;

const ID: [u8; 16] = *b"a collection id!";
const LOG: &str = "c/log";
const SNAPSHOTS: &str = "c/snapshots";
const PAGES: &str = "c/snapshots/pages";

fn files(disk: &MemDisk) -> Files {
    let mut files = Files::new();
    for folder in [LOG, SNAPSHOTS, PAGES, ""] {
        for name in disk.list(folder).unwrap_or_default() {
            let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            if let Ok(file) = disk.open_read(&path) {
                let mut bytes = vec![0; file.len().unwrap() as usize];
                file.read_at(&mut bytes, 0).unwrap();
                files.insert(path, bytes);
            }
        }
    }
    files
}

fn disk_of(files: &Files) -> Arc<dyn Disk> {
    let disk = MemDisk::new();
    disk.create_dir_all(LOG).unwrap();
    disk.create_dir_all(PAGES).unwrap();
    for (path, bytes) in files {
        disk.create(path).unwrap().write_at(bytes, 0).unwrap();
    }
    Arc::new(disk)
}

/// Changes one of the files whose path holds `part`; true where its checksums were made right.
fn change(files: &mut Files, part: &str, random: &mut Rng) -> bool {
    let which = random.usize(..files.keys().filter(|path| path.contains(part)).count());
    let (path, bytes) = files.iter_mut().filter(|(path, _)| path.contains(part)).nth(which).unwrap();
    mutate(bytes, random);
    let is_mended = random.bool();
    if is_mended {
        match path.rsplit_once('.').map(|(_, kind)| kind) {
            Some("log") => mend_segment(bytes),
            Some("manifest") => mend_hashed(bytes),
            Some("page") => {
                // A page that is what its name says, named by the manifests.
                let (old, page) = (path.clone(), bytes.clone());
                rename_page(files, &old, page);
            }
            _ => mend_small_file(bytes),
        }
    }
    is_mended
}

fn rename_page(files: &mut Files, old: &str, page: Vec<u8>) {
    let hex = |path: &str| path.rsplit_once('/').unwrap().1.strip_suffix(".page").unwrap().to_owned();
    let old_hash = *blake3::Hash::from_hex(hex(old)).unwrap().as_bytes();
    let new_hash = blake3::hash(&page);
    for (_, manifest) in files.iter_mut().filter(|(path, _)| path.ends_with(".manifest")) {
        let named: Vec<usize> = (0..manifest.len()).filter(|at| manifest[*at..].starts_with(&old_hash)).collect();
        named.into_iter().for_each(|at| manifest[at..at + 32].copy_from_slice(new_hash.as_bytes()));
        mend_hashed(manifest);
    }
    files.insert(format!("{PAGES}/{}.page", new_hash.to_hex()), page);
}

fn options() -> LogOptions {
    LogOptions { segment_bytes: 2_000, sync: SyncPolicy::Always }
}

#[test]
fn the_log_reader() {
    static REAL: LazyLock<(Files, Vec<Vec<u8>>)> = LazyLock::new(|| {
        let disk = MemDisk::new();
        let mut random = Rng::with_seed(1);
        let (mut log, _) = Log::open(Arc::new(disk.clone()), LOG, ID, options()).unwrap();
        let mut all = Vec::new();
        for _ in 0..25 {
            let batch: Vec<Vec<u8>> =
                (0..random.usize(1..4)).map(|_| (0..random.usize(0..150)).map(|_| random.u8(..)).collect()).collect();
            log.append(&batch.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
            log.commit().unwrap();
            all.extend(batch);
        }
        assert!(log.segments() >= 3);
        (files(&disk), all)
    });
    fuzz("log reader", 4_000, |random| {
        let (mut files, records) = REAL.clone();
        let is_mended = change(&mut files, LOG, random);
        let disk = disk_of(&files);
        let seen = inspect::inspect_log(&*disk, LOG, ID, &mut |_, _| Ok(()));
        drop(seen);
        let Ok((log, _)) = Log::open(disk, LOG, ID, options()) else { return };
        let mut lsn = 1;
        let _ = log.replay(1, &mut |at, record| {
            assert_eq!(at, lsn, "records come in order");
            lsn += 1;
            assert!(is_mended || records[at as usize - 1] == record, "record {at} is another one");
            Ok(())
        });
    });
}

#[test]
fn the_reader_of_hints() {
    let node = NodeId::from_bytes([7; 16]);
    let folder = format!("{HINTS}/{node}");
    let limits = HintLimits { segment_bytes: 1_000, ..HintLimits::default() };
    let record = |number: u64| {
        let vectors = Fields::from([(String::new(), Vector(vec![number as f32; 3]))]);
        let value = (!number.is_multiple_of(5)).then(|| RecordValue { vectors, payload: Default::default() });
        Record { id: number.into(), version: Version { time: number, node, seq: 0 }, value }
    };
    let disk = MemDisk::new();
    let mut hints = HintLogs::open(Arc::new(disk.clone()), limits);
    for number in 0..60 {
        hints.keep(node, CollectionId(ID), vec![record(number)], 1);
    }
    hints.flush();
    let names = disk.list(&folder).unwrap();
    assert!(names.len() > 2);
    let read = |name: &String| {
        let file = disk.open_read(&format!("{folder}/{name}")).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(&mut bytes, 0).unwrap();
        (format!("{folder}/{name}"), bytes)
    };
    let real: Files = names.iter().map(read).collect();
    fuzz("hints", 4_000, |random| {
        let mut files = real.clone();
        let is_mended = change(&mut files, &folder, random);
        let disk = MemDisk::new();
        disk.create_dir_all(&folder).unwrap();
        for (path, bytes) in &files {
            disk.create(path).unwrap().write_at(bytes, 0).unwrap();
        }
        let mut hints = HintLogs::open(Arc::new(disk), limits);
        let mut rounds = 0;
        while !hints.waiting().is_empty() {
            if let Ok(Some(batch)) = hints.next(node, 2) {
                let is_one = |found: &Record| *found == record(found.version.time);
                assert!(is_mended || batch.records.iter().all(is_one), "another record");
                hints.taken(node, batch.last_lsn).unwrap();
            }
            rounds += 1;
            assert!(rounds < 100, "it comes to no end: {hints:?}");
        }
    });
}

#[test]
fn the_reader_of_manifests_and_pages() {
    static REAL: LazyLock<(Files, Vec<u8>)> = LazyLock::new(|| {
        let disk = MemDisk::new();
        let store = SnapshotStore::open(Arc::new(disk.clone()), SNAPSHOTS).unwrap();
        let mut random = Rng::with_seed(2);
        let bytes: Vec<u8> = (0..5_000).map(|_| random.u8(..)).collect();
        for lsn in 1..3 {
            let mut writer = store.begin(lsn).unwrap();
            writer.begin_arena("points").unwrap();
            writer.write(&bytes).unwrap();
            writer.begin_arena("empty").unwrap();
            writer.begin_arena("more").unwrap();
            writer.write(&[lsn as u8; 100]).unwrap();
            writer.finish().unwrap();
        }
        (files(&disk), bytes)
    });
    fuzz("manifests and pages", 4_000, |random| {
        let (mut files, points) = REAL.clone();
        let is_mended = change(&mut files, SNAPSHOTS, random);
        let disk = disk_of(&files);
        drop(inspect::inspect_snapshots(Arc::clone(&disk), SNAPSHOTS));
        let Ok(store) = SnapshotStore::open(disk, SNAPSHOTS) else { return };
        for snapshot in store.snapshots() {
            for name in snapshot.arenas() {
                let mut bytes = Vec::new();
                let reader = snapshot.open_arena(name).unwrap().unwrap();
                let whole = reader.take(1 << 22).read_to_end(&mut bytes);
                assert!(is_mended || name != "points" || whole.is_err() || bytes == points, "other bytes");
                let pages = snapshot.pages(name).unwrap();
                let mut page = Vec::new();
                for number in 0..pages.count().min(4) {
                    let _ = pages.read(number, &mut page);
                }
            }
        }
    });
}

#[test]
fn the_reader_of_small_files() {
    let disk = MemDisk::new();
    write_atomically(&disk, "node", b"who this node is, and a little more").unwrap();
    let real = files(&disk);
    fuzz("small files", 20_000, |random| {
        let mut files = real.clone();
        let is_mended = change(&mut files, "node", random);
        let read = read_verified(&*disk_of(&files), "node");
        if let (Ok(Some(bytes)), false) = (&read, is_mended) {
            assert_eq!(bytes, b"who this node is, and a little more");
        }
    });
}

struct World {
    files: Files,
    runtime: tokio::runtime::Runtime,
    indexers: Arc<Indexers>,
}

fn schema() -> CollectionSchema {
    let field =
        FieldSchema { dim: 4, metric: Metric::Euclidean, m: 4, ef_construction: 10, profile: Default::default() };
    CollectionSchema { fields: BTreeMap::from([(String::new(), field)]), replication_factor: 1, fsync: Fsync::Always }
}

impl World {
    fn open(&self, disk: Arc<dyn Disk>) -> Result<Collection, vecino_engine::OpenError> {
        let (indexers, runtime) = (Arc::clone(&self.indexers), self.runtime.handle().clone());
        Collection::open(
            disk,
            "c",
            vecino_engine::resources::Resources::unlimited().share("c"),
            CollectionId(ID),
            schema(),
            indexers,
            runtime,
        )
    }
}

fn record(id: u64, time: u64) -> Record {
    let mut random = Rng::with_seed(time);
    let vectors = Fields::from([(String::new(), Vector((0..4).map(|_| random.f32()).collect()))]);
    let value = (!time.is_multiple_of(5)).then_some(RecordValue { vectors, payload: Default::default() });
    Record { id: id.into(), version: Version { time, node: NodeId::from_bytes([1; 16]), seq: 0 }, value }
}

/// Everything from the disk to an answer: log, manifests, pages, points, index, with every checksum right where it is mended.
#[test]
fn a_whole_collection() {
    let mut world = World {
        files: Files::new(),
        runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
        indexers: Arc::new(Indexers::start(1).unwrap()),
    };
    let disk = MemDisk::new();
    let collection = world.open(Arc::new(disk.clone())).unwrap();
    for first in [1, 31, 61] {
        let batch = (first..first + 30).map(|time| record(time % 50, time)).collect();
        world.runtime.block_on(collection.apply(batch)).unwrap();
        if first < 60 {
            collection.snapshot().unwrap();
        }
    }
    collection.close();
    world.files = files(&disk);
    fuzz("collection", 1_500, |random| {
        let mut files = world.files.clone();
        let part = *random.choice(&[LOG, PAGES, "manifest"]).unwrap();
        change(&mut files, part, random);
        let Ok(collection) = world.open(disk_of(&files)) else { return };
        let request = SearchRequest {
            field: String::new(),
            vector: Vector(vec![0.5; 4]),
            k: 10,
            ef: 32,
            threshold: None,
            with_payload: true,
            with_vectors: true,
            exact: false,
        };
        let hits = collection.search(&request).unwrap();
        assert!(hits.iter().all(|hit| hit.score.is_finite()));
        let _ = collection.scan(None, 1_000);
        world.runtime.block_on(collection.apply(vec![record(7, 1_000_001)])).unwrap();
        let _ = collection.snapshot();
        collection.close();
    });
}
