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

/// The header of the first segment, by hand.
fn header() -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(b"VECINOLG");
    bytes.extend_from_slice(&[1, 0, 0, 0]);
    bytes.extend_from_slice(&crc32(0, b"VECINOLG\x01\0\0\0").to_le_bytes());
    bytes.extend_from_slice(&COLLECTION);
    bytes.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&[0, 0, 0, 0]);
    bytes.extend_from_slice(&crc32(0, &bytes).to_le_bytes());
    bytes
}

/// A frame of the first segment, by hand, and its crc.
fn frame(chain: u32, count: u32, first_lsn: u64, durable_lsn: u64, body: &[u8]) -> (Vec<u8>, u32) {
    let seed = crc32(crc32(0, &COLLECTION), &[1, 0, 0, 0, 0, 0, 0, 0]);
    let mut tail = chain.to_le_bytes().to_vec();
    tail.extend_from_slice(&(body.len() as u32).to_le_bytes());
    tail.extend_from_slice(&count.to_le_bytes());
    tail.extend_from_slice(&first_lsn.to_le_bytes());
    tail.extend_from_slice(&durable_lsn.to_le_bytes());
    let crc = crc32(seed, &[&tail, body].concat());
    let checked = [&crc.to_le_bytes()[..], &tail].concat();
    ([b"VFRM", &crc32(seed, &checked).to_le_bytes()[..], &checked, body].concat(), crc)
}

/// The drawing in docs/disk.md, followed by hand.
#[test]
fn a_segment_is_what_the_document_draws() {
    assert_eq!(crc32(0, b"123456789"), 0xCBF4_3926, "the check value of this crc");
    let header = header();
    assert_eq!(header.len(), 56);
    let header_crc = u32::from_le_bytes(header[52..].try_into().unwrap());
    let (batch, crc) = frame(header_crc, 2, 1, 0, b"\x05\0\0\0first\0\0\0\0");
    let (declaration, _) = frame(crc, 0, 3, 2, b"");

    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let (mut log, _) = open_log(&disk, options(1 << 20, SyncPolicy::Always)).unwrap();
    log.append(&[b"first", b""]).unwrap();
    log.commit().unwrap();
    let mut found = vec![0; log.bytes() as usize];
    disk.open_read(&format!("{LOG_DIR}/00000000000000000001.log")).unwrap().read_at(&mut found, 0).unwrap();
    assert_eq!(found, [header, batch, declaration].concat());
}

#[test]
fn a_frame_that_verifies_but_cannot_be_is_corrupt_and_never_cut() {
    let header = header();
    let chain = u32::from_le_bytes(header[52..].try_into().unwrap());
    let body = b"\x01\0\0\0x";
    for ((bytes, _), reason) in [
        (frame(chain ^ 1, 1, 1, 0, body), "follows another frame"),
        (frame(chain, 1, 2, 0, body), "begins with lsn 2 where 1 is due"),
        (frame(chain, 1, 1, 1, body), "declares records durable that come after it"),
        (frame(chain, 2, 1, 0, body), "do not add up"),
        (frame(chain, 0, 1, 0, body), "do not add up"),
        (frame(chain, 1, 1, 0, b"\x02\0\0\0x"), "do not add up"),
        (frame(chain, 1, 1, 0, b"\xFF\xFF\xFF\xFFx"), "do not add up"),
        (frame(chain, u32::MAX, 1, 0, b""), "do not add up"),
        (frame(chain, 0, 1, 0, &vec![0; (32 << 20) + 5]), "do not add up"),
    ] {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        disk.create_dir_all(LOG_DIR).unwrap();
        let path = format!("{LOG_DIR}/00000000000000000001.log");
        disk.create(&path).unwrap().write_at(&[&header[..], &bytes].concat(), 0).unwrap();
        let text = open_log(&disk, SETTINGS).err().expect(reason).to_string();
        assert!(text.contains(&path) && text.contains("corrupt at offset 56") && text.contains(reason), "{text}");
        assert_eq!(disk.open_read(&path).unwrap().len().unwrap(), (56 + bytes.len()) as u64);
    }
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
