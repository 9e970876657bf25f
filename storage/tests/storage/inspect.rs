//! Inspecting tells all that is wrong, behind the first damage too, exactly, and changes nothing.

use std::ops::Range;
use std::sync::Arc;

use vecino_storage::inspect::{FindingKind, LogInspection, inspect_log, inspect_snapshots};
use vecino_storage::{Disk, MemDisk, SnapshotStore, SyncPolicy};

use crate::world::{COLLECTION, LOG_DIR, SNAPSHOT_DIR, open_log, options};

const HEADER: u64 = 56;
/// A frame of one record of [`RECORD`] bytes.
const FRAME: u64 = 40 + 4 + RECORD as u64;
/// An empty frame, which declares what is before it durable.
const DECLARATION: u64 = 40;
const RECORD: usize = 100;

/// Segments of four records each, committed one by one: 1 to 4, 5 to 8, 9 and 10.
fn log_of_ten() -> MemDisk {
    let mem = MemDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(mem.clone());
    let bytes = HEADER + 4 * (FRAME + DECLARATION);
    let (mut log, _) = open_log(&disk, options(bytes, SyncPolicy::Always)).unwrap();
    for lsn in 1..=10u8 {
        log.append(&[&[lsn; RECORD]]).unwrap();
        log.commit().unwrap();
    }
    assert_eq!(log.segments(), 3);
    mem
}

fn segment(first_lsn: u64) -> String {
    format!("{LOG_DIR}/{first_lsn:020}.log")
}

/// Where the frame of the `n`th record of a segment begins, from 0.
fn frame(n: u64) -> u64 {
    HEADER + n * (FRAME + DECLARATION)
}

/// What is found, and the records that are whole.
fn inspect(disk: &MemDisk) -> (LogInspection, Vec<u64>) {
    let mut lsns = Vec::new();
    let found = inspect_log(disk, LOG_DIR, COLLECTION, &mut |lsn, record| {
        assert_eq!(record, [lsn as u8; RECORD]);
        lsns.push(lsn);
        Ok(())
    });
    assert_eq!(found.records, lsns.len() as u64);
    (found, lsns)
}

/// File, offset and lost records of each finding.
fn lost(found: &LogInspection) -> Vec<(String, u64, Range<u64>)> {
    let lost = |kind: &FindingKind| match kind {
        FindingKind::Log { lost } => lost.clone(),
        other => panic!("{other:?}"),
    };
    found.findings.iter().map(|finding| (finding.file.clone(), finding.offset, lost(&finding.kind))).collect()
}

#[test]
fn a_sound_log_is_counted_and_nothing_is_found() {
    let (found, lsns) = inspect(&log_of_ten());
    assert_eq!(lsns, (1..=10).collect::<Vec<_>>());
    assert_eq!((found.segments, found.frames, found.first_lsn, found.next_lsn), (3, 20, 1, 11));
    assert_eq!(found.findings, []);
    assert!(found.reaches_from(1) && found.reaches_from(11) && !found.reaches_from(12) && !found.is_refused());
}

#[test]
fn damage_in_several_places_is_told_in_full_with_the_records_that_each_costs() {
    let disk = log_of_ten();
    // The body of record 2, the header of record 4, the body of record 5 and the header of the last segment.
    for (first_lsn, offset) in [(1, frame(1) + 60), (1, frame(3)), (5, frame(0) + 60), (9, 20)] {
        assert!(disk.flip(&segment(first_lsn), offset, 1));
    }
    let (found, lsns) = inspect(&disk);
    assert_eq!(lsns, [1, 3, 6, 7, 8]);
    let expected = [
        (segment(1), frame(1), 2..3),
        (segment(1), frame(3), 4..5),
        (segment(5), frame(0), 5..6),
        (segment(9), 16, 9..u64::MAX),
    ];
    assert_eq!(lost(&found), expected, "{found:#?}");
    assert!(found.is_refused());
    let reached: Vec<u64> = (1..12).filter(|lsn| found.reaches_from(*lsn)).collect();
    assert_eq!(reached, [], "nobody knows where the last segment ends");
}

#[test]
fn a_log_can_be_used_from_behind_its_damage() {
    let disk = log_of_ten();
    assert!(disk.flip(&segment(5), frame(1) + 60, 1));
    let (found, _) = inspect(&disk);
    assert_eq!(lost(&found), [(segment(5), frame(1), 6..7)]);
    let reached: Vec<u64> = (1..12).filter(|lsn| found.reaches_from(*lsn)).collect();
    assert_eq!(reached, [7, 8, 9, 10, 11]);
}

#[test]
fn a_segment_that_is_missing_or_cut_short_is_told_by_the_records_between() {
    let disk = log_of_ten();
    disk.remove(&segment(5)).unwrap();
    assert_eq!(lost(&inspect(&disk).0), [(segment(9), 32, 5..9)]);

    let disk = log_of_ten();
    disk.open_write(&segment(5)).unwrap().truncate(frame(2)).unwrap();
    assert_eq!(lost(&inspect(&disk).0), [(segment(5), frame(2), 7..9)]);
}

#[test]
fn only_what_recovery_cuts_is_called_torn() {
    let disk = log_of_ten();
    let end = frame(2);
    disk.open_write(&segment(9)).unwrap().write_at(b"VFRM", end).unwrap();
    let (found, lsns) = inspect(&disk);
    assert_eq!(lsns.len(), 10);
    let [torn] = &found.findings[..] else { panic!("{found:#?}") };
    let bytes = disk.open_read(&segment(9)).unwrap().len().unwrap() - end;
    assert_eq!((&torn.file, torn.offset, &torn.kind), (&segment(9), end, &FindingKind::TornTail { bytes }));
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let (_, recovery) = open_log(&shared, options(1 << 20, SyncPolicy::Always)).unwrap();
    assert_eq!(recovery.torn_bytes_cut, bytes);

    // The same bytes in an older segment are damage.
    let disk = log_of_ten();
    let end = disk.open_read(&segment(5)).unwrap().len().unwrap();
    disk.open_write(&segment(5)).unwrap().write_at(b"VFRM", end).unwrap();
    assert_eq!(lost(&inspect(&disk).0), [(segment(5), end, 9..9)]);
}

#[test]
fn a_record_that_its_reader_refuses_is_a_finding_of_its_own() {
    let disk = log_of_ten();
    let found = inspect_log(&disk, LOG_DIR, COLLECTION, &mut |lsn, _| match lsn {
        7 => Err("it has no vector".into()),
        _ => Ok(()),
    });
    assert_eq!(lost(&found), [(segment(5), frame(2), 7..8)]);
    assert_eq!(found.findings[0].reason, "record 7 is whole, but makes no sense: it has no vector");
}

#[test]
fn a_log_of_another_collection_or_a_newer_program_is_told_as_such() {
    let found = inspect_log(&log_of_ten(), LOG_DIR, [9; 16], &mut |_, _| Ok(()));
    assert_eq!((found.findings.len(), found.records), (3, 0));
    assert!(found.findings[0].reason.contains("it belongs to collection"), "{found:#?}");

    let disk = log_of_ten();
    let mut preamble = [b"VECINOLG".as_slice(), &7u32.to_le_bytes()].concat();
    preamble.extend(crc32fast::hash(&preamble).to_le_bytes());
    disk.open_write(&segment(9)).unwrap().write_at(&preamble, 0).unwrap();
    let (found, _) = inspect(&disk);
    assert_eq!(found.findings[0].kind, FindingKind::Newer);
    assert!(found.findings[0].reason.contains("has format version 7, this program knows up to 1"), "{found:#?}");
}

/// Two snapshots: one page in common, one of their own each.
fn two_snapshots() -> MemDisk {
    let mem = MemDisk::new();
    let store = SnapshotStore::open(Arc::new(mem.clone()), SNAPSHOT_DIR).unwrap();
    for lsn in [5, 9] {
        let mut writer = store.begin(lsn).unwrap();
        writer.begin_arena("same").unwrap();
        writer.write(b"same").unwrap();
        writer.begin_arena("own").unwrap();
        writer.write(&[lsn as u8; 10]).unwrap();
        writer.finish().unwrap();
    }
    mem
}

fn page(contents: &[u8]) -> String {
    format!("{SNAPSHOT_DIR}/pages/{}.page", blake3::hash(contents).to_hex())
}

fn manifest(sequence: u64) -> String {
    format!("{SNAPSHOT_DIR}/{sequence:020}.manifest")
}

#[test]
fn a_bad_page_is_told_once_with_every_snapshot_that_needs_it() {
    let disk = two_snapshots();
    assert!(disk.flip(&page(b"same"), 0, 1));
    disk.remove(&page(&[9; 10])).unwrap();
    let found = inspect_snapshots(Arc::new(disk), SNAPSHOT_DIR);
    let mut told: Vec<_> = found.findings.iter().map(|f| (f.file.clone(), f.kind.clone(), f.reason.as_str())).collect();
    told.sort_by_key(|(file, ..)| *file == page(b"same"));
    let both = FindingKind::Page { manifests: vec![manifest(1), manifest(0)] };
    let newest = FindingKind::Page { manifests: vec![manifest(1)] };
    let expected = [
        (page(&[9; 10]), newest, "page 0 of arena \"own\" is missing"),
        (page(b"same"), both, "page 0 of arena \"same\" does not hash to its name"),
    ];
    assert_eq!(told, expected);
    assert!(found.snapshots.iter().all(|snapshot| !snapshot.is_whole));
    assert_eq!((found.pages, found.snapshots[0].snapshot.lsn(), found.snapshots[0].bytes), (3, 9, 14));
}

#[test]
fn pages_are_garbage_only_where_every_manifest_can_be_read() {
    let disk = two_snapshots();
    disk.create(&page(b"stray")).unwrap().write_at(b"stray", 0).unwrap();
    let found = inspect_snapshots(Arc::new(disk.clone()), SNAPSHOT_DIR);
    let kinds: Vec<_> = found.findings.iter().map(|finding| (&finding.file, &finding.kind)).collect();
    assert_eq!(kinds, [(&page(b"stray"), &FindingKind::UnreferencedPage { bytes: 5 })]);
    assert!(found.snapshots.iter().all(|snapshot| snapshot.is_whole));

    assert!(disk.flip(&manifest(0), 50, 1));
    let found = inspect_snapshots(Arc::new(disk), SNAPSHOT_DIR);
    let kinds: Vec<_> = found.findings.iter().map(|finding| (&finding.file, &finding.kind)).collect();
    assert_eq!(kinds, [(&manifest(0), &FindingKind::Manifest)]);
    assert_eq!(found.findings[0].reason, "the hash of the manifest does not match");
}

#[test]
fn where_there_is_nothing_nothing_is_found_and_nothing_is_made() {
    let disk = MemDisk::new();
    let (found, _) = inspect(&disk);
    assert_eq!((found.first_lsn, found.next_lsn, found.findings.len()), (1, 1, 0));
    assert_eq!(inspect_snapshots(Arc::new(disk.clone()), SNAPSHOT_DIR).findings, []);
    assert_eq!(disk.list("").unwrap(), [""; 0]);
}
