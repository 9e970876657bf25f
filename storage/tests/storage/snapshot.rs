//! What snapshots promise while nothing breaks, and what they refuse.

use std::io::Read;
use std::sync::Arc;

use vecino_storage::{
    ARENA_NAME_BYTES_MAX, ARENAS_MAX, Disk, Fault, FaultyDisk, MemDisk, PAGE_BYTES, RealDisk, Snapshot, SnapshotError,
    SnapshotStore, SnapshotSummary,
};

fn take(store: &SnapshotStore, lsn: u64, arenas: &[(&str, &[u8])]) -> SnapshotSummary {
    let mut writer = store.begin(lsn).unwrap();
    for (name, bytes) in arenas {
        writer.begin_arena(name).unwrap();
        // In pieces that have nothing to do with pages.
        bytes.chunks(700_001).for_each(|piece| writer.write(piece).unwrap());
    }
    writer.finish().unwrap()
}

fn read(snapshot: &Snapshot, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut reader = snapshot.open_arena(name).unwrap().unwrap();
    let len = reader.len();
    reader.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, len);
    bytes
}

/// Bytes no two pages of which are alike.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut out = vec![0; bytes];
    rng.fill(&mut out);
    out
}

fn pages(disk: &dyn Disk) -> usize {
    disk.list("s/pages").unwrap().len()
}

fn arenas_come_back(disk: Arc<dyn Disk>) {
    let store = SnapshotStore::open(disk.clone(), "s").unwrap();
    assert!(store.latest().unwrap().is_none() && store.snapshots().is_empty());
    let mut vectors = noise(1, 3 * PAGE_BYTES + 5);
    let exact = noise(2, PAGE_BYTES);
    let summary = take(&store, 10, &[("vectors", &vectors), ("exact", &exact), ("none", &[])]);
    let bytes = (4 * PAGE_BYTES + 5) as u64;
    assert_eq!(summary, SnapshotSummary { lsn: 10, pages: 5, pages_written: 5, bytes });
    assert_eq!(store.oldest_kept_lsn(), None, "one snapshot alone leaves the log as it is");

    // One page changes, and one is written.
    vectors[PAGE_BYTES + 9] ^= 1;
    let summary = take(&store, 20, &[("vectors", &vectors), ("exact", &exact), ("none", &[])]);
    assert_eq!(summary, SnapshotSummary { lsn: 20, pages: 5, pages_written: 1, bytes });
    assert_eq!((pages(&*disk), store.oldest_kept_lsn()), (6, Some(10)));
    drop(store);

    let store = SnapshotStore::open(disk.clone(), "s").unwrap();
    assert_eq!(store.oldest_kept_lsn(), Some(10));
    assert_eq!(store.snapshots().iter().map(Snapshot::lsn).collect::<Vec<_>>(), [20, 10]);
    let snapshot = store.latest().unwrap().unwrap();
    assert_eq!(snapshot.arenas().collect::<Vec<_>>(), ["vectors", "exact", "none"]);
    assert!(read(&snapshot, "vectors") == vectors && read(&snapshot, "exact") == exact);
    assert!(read(&snapshot, "none").is_empty());
    assert!(snapshot.open_arena("unknown").unwrap().is_none());
    drop(snapshot);

    // A third: the first goes, and with it the page that only it had.
    take(&store, 30, &[("vectors", &vectors)]);
    assert_eq!((pages(&*disk), store.oldest_kept_lsn()), (5, Some(20)));
    take(&store, 40, &[("vectors", &vectors)]);
    assert_eq!((pages(&*disk), store.oldest_kept_lsn()), (4, Some(30)));
    assert_eq!(disk.list("s").unwrap().len(), 3, "two manifests and the pages");
}

#[test]
fn arenas_come_back_and_unchanged_pages_are_shared_on_every_disk() {
    let dir = tempfile::tempdir().unwrap();
    arenas_come_back(Arc::new(RealDisk::new(dir.path().to_path_buf())));
    arenas_come_back(Arc::new(MemDisk::new()));
    arenas_come_back(Arc::new(FaultyDisk::new(Arc::new(MemDisk::new()))));
}

#[test]
fn pages_of_a_snapshot_that_is_being_read_stay_though_newer_ones_push_it_out() {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let store = SnapshotStore::open(disk.clone(), "s").unwrap();
    take(&store, 1, &[("a", b"one")]);
    let held = store.latest().unwrap().unwrap();
    for lsn in 2..6 {
        take(&store, lsn, &[("a", &[lsn as u8; 10])]);
    }
    assert_eq!(pages(&*disk), 3);
    assert_eq!(read(&held, "a"), b"one");
    drop(held);
    take(&store, 6, &[("a", b"six")]);
    assert_eq!(pages(&*disk), 2);
}

#[test]
fn a_page_that_has_gone_missing_is_written_anew() {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let store = SnapshotStore::open(disk.clone(), "s").unwrap();
    take(&store, 1, &[("a", b"same")]);
    let page = disk.list("s/pages").unwrap().remove(0);
    disk.remove(&format!("s/pages/{page}")).unwrap();
    assert_eq!(take(&store, 2, &[("a", b"same")]).pages_written, 1);
    assert_eq!(read(&store.latest().unwrap().unwrap(), "a"), b"same");
}

#[test]
fn one_snapshot_at_a_time_and_an_abandoned_one_leaves_nothing() {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let store = SnapshotStore::open(disk.clone(), "s").unwrap();
    let mut writer = store.begin(1).unwrap();
    writer.begin_arena("a").unwrap();
    writer.write(&noise(1, 2 * PAGE_BYTES)).unwrap();
    assert_eq!(pages(&*disk), 2);
    assert!(matches!(store.begin(2).err().unwrap(), SnapshotError::InProgress { .. }));
    drop(writer);
    assert_eq!(pages(&*disk), 0);
    assert!(store.latest().unwrap().is_none());
    take(&store, 2, &[("a", b"now it may")]);
}

#[test]
fn a_snapshot_that_a_crash_interrupted_is_swept_away_on_opening() {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let store = SnapshotStore::open(disk.clone(), "s").unwrap();
    take(&store, 1, &[("a", b"good")]);
    for path in ["s/00000000000000000002.manifest.tmp", "s/pages/00.page", "s/pages/00.tmp", "s/notes.txt"] {
        disk.create(path).unwrap();
    }
    drop(store);
    let store = SnapshotStore::open(disk.clone(), "s").unwrap();
    assert_eq!(disk.list("s").unwrap(), ["00000000000000000000.manifest", "notes.txt", "pages"]);
    assert_eq!(pages(&*disk), 1);
    assert_eq!(read(&store.latest().unwrap().unwrap(), "a"), b"good");
}

#[test]
fn wrong_use_is_refused_and_says_what_is_wrong() {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let store = SnapshotStore::open(disk, "s").unwrap();
    let mut writer = store.begin(1).unwrap();
    assert!(writer.write(b"x").unwrap_err().to_string().contains("none was begun"));
    assert!(writer.begin_arena("").unwrap_err().to_string().contains("out of range"));
    let long = "x".repeat(ARENA_NAME_BYTES_MAX + 1);
    assert!(writer.begin_arena(&long).unwrap_err().to_string().contains("1 to 255 bytes"));
    writer.begin_arena("a").unwrap();
    assert!(writer.begin_arena("a").unwrap_err().to_string().contains("arena \"a\": the name is taken"));
    for i in 1..ARENAS_MAX {
        writer.begin_arena(&i.to_string()).unwrap();
    }
    assert!(writer.begin_arena("one more").unwrap_err().to_string().contains("too many"));
    assert_eq!(writer.finish().unwrap().pages, 0, "what was refused did no harm to the rest");
}

#[test]
fn a_writer_that_failed_once_cannot_finish() {
    let faulty = FaultyDisk::new(Arc::new(MemDisk::new()));
    let disk: Arc<dyn Disk> = Arc::new(faulty.clone());
    let store = SnapshotStore::open(disk, "s").unwrap();
    let mut writer = store.begin(1).unwrap();
    writer.begin_arena("a").unwrap();
    faulty.set(Fault::EverySync);
    assert!(writer.write(&noise(1, PAGE_BYTES)).is_err());
    faulty.heal();
    assert!(writer.write(b"more").is_err());
    assert!(matches!(writer.finish().unwrap_err(), SnapshotError::Incomplete));
    assert!(store.latest().unwrap().is_none());
}

#[test]
fn where_no_manifest_verifies_that_is_an_error_and_not_an_empty_store() {
    let mem = MemDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(mem.clone());
    let store = SnapshotStore::open(disk.clone(), "s").unwrap();
    take(&store, 1, &[("a", b"x")]);
    assert!(mem.flip("s/00000000000000000000.manifest", 20, 1));
    let store = SnapshotStore::open(disk.clone(), "s").unwrap();
    let text = store.latest().err().unwrap().to_string();
    assert!(text.contains("s/00000000000000000000.manifest is corrupt at offset 16"), "{text}");
    assert!(store.snapshots().is_empty());
    assert_eq!(pages(&*disk), 1, "the pages of a manifest that cannot be read are not garbage");
}

/// Each manifest on disk must be readable in full by itself, whatever becomes of the others.
fn every_manifest_has_its_pages(mem: &MemDisk, context: &str) -> usize {
    let manifests = |disk: &MemDisk| -> Vec<String> {
        disk.list("s").unwrap().into_iter().filter(|name| name.ends_with(".manifest")).collect()
    };
    let names = manifests(mem);
    for name in &names {
        let alone = mem.fork();
        for other in names.iter().filter(|other| *other != name) {
            alone.remove(&format!("s/{other}")).unwrap();
        }
        let store = SnapshotStore::open(Arc::new(alone), "s").unwrap();
        let snapshot = store.latest().unwrap().expect(context);
        for arena in snapshot.arenas() {
            let result = std::io::copy(&mut snapshot.open_arena(arena).unwrap().unwrap(), &mut std::io::sink());
            assert!(result.is_ok(), "{context}: {name}: {result:?}");
        }
    }
    names.len()
}

#[test]
fn no_manifest_is_ever_without_its_pages_whatever_fails_while_taking_a_snapshot() {
    let contents = |lsn: u64| vec![lsn as u8; 2000];
    let settled = MemDisk::new();
    let store = SnapshotStore::open(Arc::new(settled.clone()), "s").unwrap();
    take(&store, 1, &[("a", &contents(1)), ("all", b"alike")]);
    take(&store, 2, &[("a", &contents(2)), ("all", b"alike")]);
    drop(store);
    let mut three = 0;
    for at in 1..25 {
        for fault in [
            Fault::Nth(at, std::io::ErrorKind::Other),
            Fault::NthDone(at, std::io::ErrorKind::Other),
            Fault::Halt { at, done: true },
            Fault::Halt { at, done: false },
        ] {
            for seed in (0..40).map(|n| n + 1000 * at) {
                let context = format!("{fault:?}, seed {seed}");
                let mem = settled.fork();
                let faulty = FaultyDisk::new(Arc::new(mem.clone()));
                faulty.set(fault);
                let Ok(store) = SnapshotStore::open(Arc::new(faulty), "s") else { continue };
                for lsn in [3, 4] {
                    let Ok(mut writer) = store.begin(lsn) else { continue };
                    let mut write = || {
                        for (name, bytes) in [("a", contents(lsn)), ("all", b"alike".to_vec())] {
                            writer.begin_arena(name)?;
                            writer.write(&bytes)?;
                        }
                        Ok::<_, std::io::Error>(())
                    };
                    if write().is_ok() {
                        let _ = writer.finish();
                    }
                    three += usize::from(every_manifest_has_its_pages(&mem, &context) == 3);
                }
                drop(store);
                let killed = mem.fork();
                drop(SnapshotStore::open(Arc::new(killed.clone()), "s").unwrap());
                killed.crash(seed);
                assert!(every_manifest_has_its_pages(&killed, &context) >= 2, "{context}, killed, then the power cut");
                mem.crash(seed);
                assert!(every_manifest_has_its_pages(&mem, &context) >= 2, "{context}: two stay at any time");
                drop(SnapshotStore::open(Arc::new(mem.clone()), "s").unwrap());
                mem.crash(seed + 1);
                assert!(every_manifest_has_its_pages(&mem, &context) >= 2, "{context}, opened again");
            }
        }
    }
    assert!(three > 0, "no fault ever left a third manifest standing");
}
