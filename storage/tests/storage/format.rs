//! Known bytes: what this program writes is what format 1 says, and it reads what was written when that was new.

use std::path::PathBuf;
use std::sync::Arc;

use vecino_storage::{
    Disk, FileError, LogError, MemDisk, RealDisk, SnapshotError, SnapshotStore, SyncPolicy, read_verified,
    write_atomically,
};

use crate::world::{COLLECTION, LOG_DIR, Node, SNAPSHOT_DIR, open_log, options};

const SETTINGS: vecino_storage::LogOptions =
    vecino_storage::LogOptions { segment_bytes: 300, sync: SyncPolicy::Always };

fn records() -> Vec<Vec<u8>> {
    vec![b"first".to_vec(), Vec::new(), b"third".to_vec(), vec![0xEE; 200], b"fifth".to_vec()]
}

/// The directory of the fixture, made by the program as it is now.
fn make(disk: &Arc<dyn Disk>) {
    let mut node = Node::open(disk, SETTINGS).unwrap();
    let records = records();
    for batch in [0..2, 2..3, 3..5] {
        let batch = &records[batch];
        node.log.append(&batch.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
        node.log.commit().unwrap();
        node.records.extend_from_slice(batch);
        if node.records.len() == 3 {
            node.snapshot().unwrap();
        }
    }
    write_atomically(&**disk, STATE, b"generation 7").unwrap();
}

/// Files below `dir` with their bytes, without the space that is reserved ahead, which is no part of the format.
fn files(disk: &dyn Disk, dir: &str, out: &mut Vec<(String, Vec<u8>)>) {
    for name in disk.list(dir).unwrap() {
        let path = format!("{dir}/{name}");
        if disk.list(&path).is_ok() {
            files(disk, &path, out);
            continue;
        }
        let file = disk.open_read(&path).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(&mut bytes, 0).unwrap();
        if path.ends_with(".log") {
            // The last field of each is the durable lsn of a declaration, 8 bytes of which only the first is not zero.
            let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 8;
            bytes.truncate(end);
        }
        out.push((path, bytes));
    }
}

fn fixture() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1")
}

#[test]
fn what_is_written_now_is_byte_for_byte_what_format_1_is() {
    let now: Arc<dyn Disk> = Arc::new(MemDisk::new());
    make(&now);
    let (mut expected, mut found) = (Vec::new(), Vec::new());
    files(&RealDisk::new(fixture()), "films", &mut expected);
    files(&*now, "films", &mut found);
    let names = |files: &[(String, Vec<u8>)]| files.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    assert_eq!(names(&found), names(&expected));
    for ((path, found), (_, expected)) in found.iter().zip(&expected) {
        assert_eq!(found, expected, "{path}");
    }
    assert_eq!(found.len(), 6, "two segments, a manifest, two pages and a state file");
}

#[test]
fn a_directory_of_format_1_opens_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(dir.path().to_path_buf()));
    let mut kept = Vec::new();
    files(&RealDisk::new(fixture()), "films", &mut kept);
    for (path, bytes) in kept {
        disk.create_dir_all(path.rsplit_once('/').unwrap().0).unwrap();
        disk.create(&path).unwrap().write_at(&bytes, 0).unwrap();
    }
    let mut node = Node::open(&disk, SETTINGS).unwrap();
    assert_eq!((node.records.clone(), node.recovery.torn_bytes_cut), (records(), 0));
    assert_eq!(node.snapshots.latest().unwrap().unwrap().lsn(), 4);
    assert_eq!(node.log.append(&[b"sixth"]).unwrap(), 6);
    node.log.commit().unwrap();
    drop(node);
    assert_eq!(Node::open(&disk, SETTINGS).unwrap().records[5], b"sixth");
    assert_eq!(read_verified(&*disk, STATE).unwrap().unwrap(), b"generation 7");
}

/// Crc32 (IEEE 802.3, reflected) bit by bit, started from another crc.
fn crc32(start: u32, bytes: &[u8]) -> u32 {
    let mut crc = !start;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

/// The drawing in docs/disk.md, followed by hand.
#[test]
fn a_segment_is_what_the_document_draws() {
    assert_eq!(crc32(0, b"123456789"), 0xCBF4_3926, "the check value of this crc");
    let mut expected = Vec::new();
    let mut put = |bytes: &[u8]| expected.extend_from_slice(bytes);
    put(b"VECINOLG");
    put(&[1, 0, 0, 0]);
    put(&crc32(0, b"VECINOLG\x01\0\0\0").to_le_bytes());
    put(&COLLECTION);
    put(&[1, 0, 0, 0, 0, 0, 0, 0]);
    put(&[1, 0, 0, 0, 0, 0, 0, 0]);
    put(&[0, 0, 0, 0]);
    let header_crc = crc32(0, &expected);
    expected.extend_from_slice(&header_crc.to_le_bytes());
    assert_eq!(expected.len(), 56);

    let seed = crc32(crc32(0, &COLLECTION), &[1, 0, 0, 0, 0, 0, 0, 0]);
    let mut chain = header_crc;
    for (count, first_lsn, durable_lsn, body) in [(2u32, 1u64, 0u64, &b"\x05\0\0\0first\0\0\0\0"[..]), (0, 3, 2, b"")] {
        let mut tail = chain.to_le_bytes().to_vec();
        tail.extend_from_slice(&(body.len() as u32).to_le_bytes());
        tail.extend_from_slice(&count.to_le_bytes());
        tail.extend_from_slice(&first_lsn.to_le_bytes());
        tail.extend_from_slice(&durable_lsn.to_le_bytes());
        chain = crc32(seed, &[&tail, body].concat());
        let checked = [&chain.to_le_bytes()[..], &tail].concat();
        expected.extend_from_slice(b"VFRM");
        expected.extend_from_slice(&crc32(seed, &checked).to_le_bytes());
        expected.extend_from_slice(&checked);
        expected.extend_from_slice(body);
    }

    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let (mut log, _) = open_log(&disk, options(1 << 20, SyncPolicy::Always)).unwrap();
    log.append(&[b"first", b""]).unwrap();
    log.commit().unwrap();
    let mut found = vec![0; log.bytes() as usize];
    disk.open_read(&format!("{LOG_DIR}/00000000000000000001.log")).unwrap().read_at(&mut found, 0).unwrap();
    assert_eq!(found, expected);
}

/// A disk with what [`make`] makes, one file of which claims format 2, under a good checksum.
fn from_the_future(path: &str) -> Arc<dyn Disk> {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    make(&disk);
    let file = disk.open_write(path).unwrap();
    file.write_at(&[2, 0, 0, 0], 8).unwrap();
    let mut preamble = [0; 12];
    file.read_at(&mut preamble, 0).unwrap();
    file.write_at(&crc32(0, &preamble).to_le_bytes(), 12).unwrap();
    disk
}

#[test]
fn a_newer_format_is_refused_with_both_numbers() {
    let told = |text: String, path: &str| {
        assert!(text.contains(path) && text.contains("format version 2, this program knows up to 1"), "{text}");
    };
    for name in ["00000000000000000001.log", "00000000000000000004.log"] {
        let path = format!("{LOG_DIR}/{name}");
        let error = open_log(&from_the_future(&path), SETTINGS).err().unwrap();
        assert!(matches!(error, LogError::NewerFormat { found: 2, known: 1, .. }));
        told(error.to_string(), &path);
    }
    let path = format!("{SNAPSHOT_DIR}/00000000000000000000.manifest");
    let error = SnapshotStore::open(from_the_future(&path), SNAPSHOT_DIR).err().unwrap();
    assert!(matches!(error, SnapshotError::NewerFormat { found: 2, known: 1, .. }));
    told(error.to_string(), &path);
    let error = read_verified(&*from_the_future(STATE), STATE).unwrap_err();
    assert!(matches!(error, FileError::NewerFormat { found: 2, known: 1, .. }));
    told(error.to_string(), STATE);
}

const STATE: &str = "films/state";
