//! Rot, byte by byte, over a small data directory: a node gets everything back or is told which file is damaged where,
//! and the doctor finds each flip, judges it as opening does, and makes nothing worse.

use std::collections::BTreeMap;
use std::sync::Arc;

use vecino_engine::indexers::Indexers;
use vecino_engine::persist::{OpenError, log_dir, snapshots_dir};
use vecino_engine::resources::Resources;
use vecino_engine::{Collection, SearchRequest};
use vecino_model::{
    CatalogEntry, CollectionId, CollectionSchema, FieldSchema, Fields, Fsync, LiveCollection, MeshId, Metric, NodeId,
    Outcome, Payload, PointId, RawHit, Record, RecordValue, Value, Vector, Version,
};
use vecino_node::catalog_file::{self, CATALOG_FILE};
use vecino_node::collection_files::COLLECTIONS;
use vecino_node::state::{self, NodeState};
use vecino_storage::{Disk, MemDisk, write_atomically};

use super::{Loss, Repair, Report, examine, repair};

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

fn nearest(collection: &Collection, vector: Vec<f32>, k: u32) -> Vec<RawHit> {
    let request = SearchRequest {
        field: String::new(),
        vector: Vector(vector),
        k,
        ef: 64,
        threshold: None,
        with_payload: true,
        with_vectors: true,
        exact: false,
    };
    collection.search(&request).unwrap()
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

/// Small, so that the log has several segments and is cut behind the older snapshot.
const SEGMENT_BYTES: u64 = 480;
const ID: CollectionId = CollectionId([1; 16]);

fn directory() -> String {
    format!("{COLLECTIONS}/{ID}")
}

fn small_schema() -> CollectionSchema {
    let field = FieldSchema {
        dim: DIM as u32,
        metric: Metric::Euclidean,
        m: 2,
        ef_construction: 16,
        profile: Default::default(),
    };
    CollectionSchema { fields: BTreeMap::from([(String::new(), field)]), ..schema() }
}

/// What the files of a disk hold.
fn contents(disk: &MemDisk) -> BTreeMap<String, Vec<u8>> {
    let directory = directory();
    let (log, snapshots) = (log_dir(&directory), snapshots_dir(&directory));
    let pages = format!("{snapshots}/pages");
    let paths = |dir: String| -> Vec<String> {
        let names = disk.list(&dir).unwrap_or_default();
        names.into_iter().filter(|name| name != "pages").map(|name| format!("{dir}/{name}")).collect()
    };
    let paths = [log, snapshots, pages].into_iter().flat_map(paths).chain([state::FILE.into(), CATALOG_FILE.into()]);
    let read = |path: String| {
        let file = disk.open_read(&path).ok()?;
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(&mut bytes, 0).unwrap();
        Some((path, bytes))
    };
    paths.filter_map(read).collect()
}

fn open(lab: &Lab, disk: &MemDisk) -> Result<Collection, OpenError> {
    Collection::open_with_segments(
        Arc::new(disk.clone()),
        &directory(),
        Resources::unlimited().share("films"),
        ID,
        small_schema(),
        Arc::clone(&lab.indexers),
        lab.runtime.handle().clone(),
        SEGMENT_BYTES,
    )
}

fn examined(disk: &MemDisk) -> Report {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    examine(&shared).unwrap()
}

/// Two snapshots that have a page in common, a log of several segments that reaches back to the older, and acknowledged
/// records behind both.
fn grown(lab: &Lab) -> BTreeMap<u64, Record> {
    let node = NodeId::from_bytes([3; 16]);
    let state = NodeState {
        starts: 1,
        node_id: node,
        mesh_id: Some(MeshId([5; 16])),
        tokens: vec![7],
        generation: 1,
        peers: BTreeMap::new(),
    };
    state.save(&lab.disk).unwrap();
    let live = LiveCollection { schema: small_schema(), placement: BTreeMap::from([(node, vec![7])]) };
    let entries = [CatalogEntry { name: "films".into(), version: version(1), id: ID, live: Some(live) }];
    write_atomically(&lab.disk, CATALOG_FILE, &catalog_file::encode(entries.iter())).unwrap();

    let collection = open(lab, &lab.disk).unwrap();
    let (mut oracle, mut time) = (BTreeMap::new(), 0);
    for step in 0..16u64 {
        time += 1;
        let id = step % 11;
        let record = if step % 5 == 4 { delete(id, time) } else { put(id, time) };
        lab.apply(&collection, vec![record.clone()]);
        oracle.insert(id, record);
        if [4, 8, 12].contains(&step) {
            collection.snapshot().unwrap();
        }
    }
    check(&collection, &oracle);
    collection.close();
    let files = contents(&lab.disk);
    assert!(files.keys().filter(|path| path.ends_with(".log")).count() >= 3, "{:?}", files.keys());
    assert!(!files.contains_key(&format!("{}/{:020}.log", log_dir(&directory()), 1)), "the log was cut");
    oracle
}

#[test]
fn a_flipped_byte_anywhere_gives_everything_or_names_file_and_offset_and_the_doctor_finds_it() {
    let lab = Lab::new();
    let oracle = grown(&lab);
    let sound = examined(&lab.disk);
    assert!(sound.findings.is_empty() && sound.collections[0].is_complete, "{sound:#?}");
    let (mut opened, mut refused, mut repaired) = (0, 0, 0);
    for (path, bytes) in contents(&lab.disk) {
        for offset in 0..bytes.len() as u64 {
            // Reserved space is all alike: a sample of it will do.
            if bytes[offset as usize..].iter().all(|byte| *byte == 0) && offset % 97 != 0 {
                continue;
            }
            for mask in [1 << (offset % 8), 0xFF] {
                let context = format!("{path} byte {offset} mask {mask}");
                let rotten = lab.disk.fork();
                assert!(rotten.flip(&path, offset, mask));
                let before = contents(&rotten);
                let report = examined(&rotten);
                assert!(contents(&rotten) == before, "{context}: examining changed something");
                assert!(report.findings.iter().any(|found| found.file == path), "{context}: {report:#?}");
                if path == state::FILE || path == CATALOG_FILE {
                    assert_eq!(report.damage().map(|found| found.loss).collect::<Vec<_>>(), [Loss::OnlyReplicas]);
                    continue;
                }

                let healed = rotten.fork();
                let shared: Arc<dyn Disk> = Arc::new(healed.clone());
                let after = repair(&shared, report.clone()).unwrap();
                assert!(after.failed.is_empty(), "{context}: {after:#?}");
                let is_healed = after.report.damage().next().is_none();
                match open(&lab, &rotten) {
                    Ok(collection) => {
                        opened += 1;
                        check(&collection, &oracle);
                        assert!(report.collections[0].is_complete, "{context}: {report:#?}");
                    }
                    Err(error) => {
                        refused += 1;
                        let text = error.to_string();
                        assert!(text.contains(&path) && text.contains("offset"), "{context}: {text}");
                        let found = report.damage().find(|found| found.file == path);
                        let found = found.unwrap_or_else(|| panic!("{context}: {text}: {report:#?}"));
                        assert!(found.loss != Loss::Nothing && found.repairs.is_empty(), "{context}: {found:#?}");
                        assert!(!is_healed, "{context}: it cannot be opened");
                    }
                }
                // A directory that was repaired opens to everything, and what could be opened still can.
                repaired += usize::from(!after.done.is_empty());
                if !after.done.is_empty() {
                    assert!(is_healed, "{context}: {after:#?}");
                    check(&open(&lab, &healed).unwrap(), &oracle);
                }
            }
        }
    }
    println!("{opened} flips healed, {refused} refused, {repaired} repaired by the doctor");
    assert!(opened > 1_000 && refused > 1_000 && repaired > 1_000, "{opened} {refused} {repaired}");
}

#[test]
fn a_file_that_is_missing_is_noticed_or_not_needed() {
    let lab = Lab::new();
    let oracle = grown(&lab);
    let files = contents(&lab.disk);
    let last_segment = files.keys().rfind(|path| path.ends_with(".log")).unwrap().clone();
    let mut refused = 0;
    for path in files.keys().filter(|path| path.starts_with(COLLECTIONS)) {
        // Without its last segment a log looks as if the records in it had never been.
        if *path == last_segment {
            continue;
        }
        let maimed = lab.disk.fork();
        maimed.remove(path).unwrap();
        let report = examined(&maimed);
        assert!(!report.findings.is_empty(), "{path}");
        match open(&lab, &maimed) {
            Ok(collection) => {
                check(&collection, &oracle);
                assert!(report.collections[0].is_complete, "{path}: {report:#?}");
            }
            Err(error) => {
                refused += 1;
                assert!(report.damage().next().is_some(), "{path}: {error}: {report:#?}");
            }
        }
    }
    assert!(refused > 1, "{refused}");
}

#[test]
fn a_log_that_lost_its_end_to_an_older_copy_is_told_from_a_torn_one() {
    let lab = Lab::new();
    grown(&lab);
    let files = contents(&lab.disk);
    // The oldest segment alone, as if the others had never been, and behind it the beginning of a frame.
    let segments: Vec<&String> = files.keys().filter(|path| path.ends_with(".log")).collect();
    for path in &segments[1..] {
        lab.disk.remove(path).unwrap();
    }
    let end = files[segments[0]].len() as u64;
    lab.disk.open_write(segments[0]).unwrap().write_at(b"VFRM", end).unwrap();
    let before = contents(&lab.disk);
    let report = examined(&lab.disk);
    let losses: Vec<_> = report.findings.iter().map(|found| (found.loss, found.repairs.len())).collect();
    assert_eq!(losses, [(Loss::OnlyReplicas, 0), (Loss::OnlyReplicas, 0)], "{report:#?}");
    assert!(!report.collections[0].is_complete);
    let shared: Arc<dyn Disk> = Arc::new(lab.disk.clone());
    assert_eq!(repair(&shared, report).unwrap().done, []);
    assert!(contents(&lab.disk) == before);
}

#[test]
fn what_a_crash_leaves_is_tidied_and_nothing_else() {
    let lab = Lab::new();
    let oracle = grown(&lab);
    let sound = contents(&lab.disk);
    let directory = directory();
    let segment = sound.keys().rfind(|path| path.ends_with(".log")).unwrap();
    let end = examined(&lab.disk).collections[0].next_lsn;
    // An unfinished frame behind the last one, in reserved space.
    let used = sound[segment].iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
    let tail = lab.disk.open_write(segment).unwrap();
    tail.write_at(b"VFRM and no more", used + 8).unwrap();
    let leftovers = [
        "node.tmp".to_owned(),
        format!("{directory}/log/{:020}.log.tmp", end),
        format!("{directory}/snapshots/{:020}.manifest.tmp", 9),
        format!("{directory}/snapshots/pages/{}.tmp", "ab".repeat(32)),
        format!("{directory}/snapshots/pages/{}.page", "cd".repeat(32)),
    ];
    for path in &leftovers {
        lab.disk.create(path).unwrap().write_at(b"half", 0).unwrap();
    }
    let report = examined(&lab.disk);
    assert_eq!(report.findings.len(), 6, "{report:#?}");
    assert_eq!(report.damage().count(), 0, "a crash is no damage: {report:#?}");
    let shared: Arc<dyn Disk> = Arc::new(lab.disk.clone());
    let after = repair(&shared, report).unwrap();
    let removed: Vec<_> = leftovers.iter().cloned().map(Repair::Remove).collect();
    assert!(removed.iter().all(|repair| after.done.contains(repair)) && after.done.len() == 6, "{after:#?}");
    assert!(after.done.iter().any(|repair| matches!(repair, Repair::Cut { file, .. } if file == segment)));
    assert!(after.report.findings.is_empty());
    let mut left = contents(&lab.disk);
    assert!(sound[segment].starts_with(&left[segment]));
    left.insert(segment.clone(), sound[segment].clone());
    assert!(left == sound, "nothing else was touched");
    check(&open(&lab, &lab.disk).unwrap(), &oracle);
}

#[test]
fn nothing_is_repaired_where_a_newer_program_has_been() {
    let lab = Lab::new();
    grown(&lab);
    let path = contents(&lab.disk).into_keys().rfind(|path| path.ends_with(".manifest")).unwrap();
    let mut preamble = [b"VECINOSN".as_slice(), &9u32.to_le_bytes()].concat();
    preamble.extend(crc32(&preamble).to_le_bytes());
    lab.disk.open_write(&path).unwrap().write_at(&preamble, 0).unwrap();
    lab.disk.create(&format!("{}/log/x.tmp", directory())).unwrap();
    let report = examined(&lab.disk);
    let newer = report.damage().find(|found| found.file == path).unwrap();
    assert!(newer.problem.contains("version 9, this program knows up to 1"), "{newer:#?}");
    assert_eq!(newer.loss, Loss::Unknown);
    assert_eq!(report.repairs().count(), 0, "{report:#?}");
}

/// The checksum of IEEE 802.3, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

#[test]
fn repairing_changes_nothing_of_what_opening_gives_however_much_is_damaged() {
    let lab = Lab::new();
    grown(&lab);
    let files: Vec<_> = contents(&lab.disk).into_iter().filter(|(path, _)| path.starts_with(COLLECTIONS)).collect();
    let given = |disk: &MemDisk| open(&lab, disk).ok().map(|collection| collection.scan(None, 1_000).records);
    let (mut opened, mut refused, mut repaired) = (0, 0, 0);
    for seed in 0..400 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (rotten, mut damage) = (lab.disk.fork(), Vec::new());
        for _ in 0..random.usize(1..5) {
            let (path, bytes) = &files[random.usize(..files.len())];
            let at = random.u64(..bytes.len() as u64);
            let Ok(file) = rotten.open_write(path) else { continue };
            match random.u8(..6) {
                0 => file.truncate(at).unwrap(),
                1 => file.write_at(&[0; 60], at).unwrap(),
                2 => file.write_at(b"noise from somewhere else", bytes.len() as u64).unwrap(),
                3 => rotten.remove(path).unwrap(),
                _ => assert!(rotten.flip(path, at, 1 << random.u8(..8)) || file.len().unwrap() <= at),
            }
            damage.push((path, at));
        }
        let report = examined(&rotten);
        let before = given(&rotten.fork());
        let shared: Arc<dyn Disk> = Arc::new(rotten.clone());
        let after = repair(&shared, report).unwrap();
        assert_eq!(given(&rotten), before, "seed {seed}: {damage:?}: {after:#?}");
        let is_whole = after.report.collections[0].is_complete;
        assert!(is_whole || before.is_none(), "seed {seed}: {damage:?}: it opens, and should not: {after:#?}");
        let healthy = after.report.damage().next().is_none();
        assert!(
            !healthy || before.is_some(),
            "seed {seed}: {damage:?}: it is called healthy, and does not open: {after:#?}"
        );
        match before {
            Some(_) => opened += 1,
            None => refused += 1,
        }
        repaired += usize::from(!after.done.is_empty());
    }
    assert!(opened > 20 && refused > 20 && repaired > 20, "{opened} {refused} {repaired}");
}
