//! Rot and tearing, byte by byte, over a small data directory.

use std::sync::Arc;

use vecino_storage::{Disk, MemDisk, SyncPolicy};

use crate::world::{LOG_DIR, Node, SNAPSHOT_DIR, open_log, options, record, replayed};

const SETTINGS: vecino_storage::LogOptions =
    vecino_storage::LogOptions { segment_bytes: 1500, sync: SyncPolicy::Always };

fn size(disk: &dyn Disk, path: &str) -> u64 {
    disk.open_read(path).unwrap().len().unwrap()
}

fn files(disk: &dyn Disk) -> Vec<String> {
    let pages = format!("{SNAPSHOT_DIR}/pages");
    let mut paths = Vec::new();
    for dir in [LOG_DIR, SNAPSHOT_DIR, &pages] {
        let names = disk.list(dir).unwrap();
        paths.extend(names.into_iter().filter(|name| name != "pages").map(|name| format!("{dir}/{name}")));
    }
    paths
}

/// Two snapshots, a log of several segments that reaches back to the older one, and acknowledged records behind both.
fn directory() -> (MemDisk, Vec<Vec<u8>>) {
    let mem = MemDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(mem.clone());
    let mut node = Node::open(&disk, SETTINGS).unwrap();
    for step in 0..12 {
        let first = node.log.next_lsn();
        let batch: Vec<Vec<u8>> =
            (first..first + 3).map(|lsn| record(11, lsn)[..].iter().take(150).copied().collect()).collect();
        node.log.append(&batch.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
        node.log.commit().unwrap();
        node.records.extend(batch);
        if [3, 6, 9].contains(&step) {
            node.snapshot().unwrap();
            node.cut_log().unwrap();
        }
    }
    assert!(node.log.segments() >= 2 && node.log.first_lsn() > 1);
    let records = node.records.clone();
    (mem, records)
}

#[test]
fn a_flipped_byte_anywhere_gives_all_data_or_an_error_that_names_file_and_offset() {
    let (mem, records) = directory();
    let (mut whole, mut refused) = (0, 0);
    for path in files(&mem) {
        for offset in 0..size(&mem, &path) {
            for mask in [0x01, 0x80, 0xFF] {
                // Reserved space is all alike: a sample of it will do.
                if offset > 4000 && offset % 997 != 0 {
                    continue;
                }
                let rotten = mem.fork();
                assert!(rotten.flip(&path, offset, mask));
                let shared: Arc<dyn Disk> = Arc::new(rotten);
                match Node::open(&shared, SETTINGS) {
                    Ok(node) => {
                        assert!(node.records == records, "{path} byte {offset} mask {mask}: wrong data, no error");
                        whole += 1;
                    }
                    Err(error) => {
                        let text = error.to_string();
                        assert!(text.contains(&path) && text.contains("offset"), "{path} byte {offset}: {text}");
                        refused += 1;
                    }
                }
            }
        }
    }
    println!("{whole} flips healed, {refused} refused");
    assert!(whole > 500 && refused > 500, "{whole} {refused}");
}

#[test]
fn a_damaged_newer_snapshot_is_healed_by_the_older_one_and_the_log() {
    let (mem, records) = directory();
    let disk: Arc<dyn Disk> = Arc::new(mem.clone());
    let manifests = |disk: &dyn Disk| -> Vec<String> {
        disk.list(SNAPSHOT_DIR).unwrap().into_iter().filter(|name| name.ends_with(".manifest")).collect()
    };
    let names = manifests(&*disk);
    assert_eq!(names.len(), 2);
    let newest = format!("{SNAPSHOT_DIR}/{}", names[1]);
    assert!(mem.flip(&newest, 40, 1));
    let mut node = Node::open(&disk, SETTINGS).unwrap();
    assert!(node.records == records);
    assert_eq!(node.snapshots.snapshots().len(), 1);
    assert_eq!(node.snapshots.oldest_kept_lsn(), None, "the log stays while there is one good snapshot");
    node.snapshot().unwrap();
    assert_eq!(node.snapshots.snapshots().len(), 2);
    assert!(!manifests(&*disk).contains(&names[1]), "the damaged one goes when a good one has taken its place");
    assert!(Node::open(&disk, SETTINGS).unwrap().records == records);
}

#[test]
fn a_page_found_bad_is_written_anew_by_the_next_snapshot() {
    let (mem, records) = directory();
    let disk: Arc<dyn Disk> = Arc::new(mem.clone());
    let pages = format!("{SNAPSHOT_DIR}/pages");
    // The page of the newest snapshot's records is the longest, and no other snapshot has it.
    let page =
        disk.list(&pages).unwrap().into_iter().max_by_key(|name| size(&*disk, &format!("{pages}/{name}"))).unwrap();
    let page = format!("{pages}/{page}");
    let mut node = Node::open(&disk, SETTINGS).unwrap();
    let lsn = node.snapshots.latest().unwrap().unwrap().lsn();
    assert!(mem.flip(&page, 3, 0xFF));
    let snapshot = node.snapshots.latest().unwrap().unwrap();
    let mut reader = snapshot.open_arena("records").unwrap().unwrap();
    let text = std::io::copy(&mut reader, &mut std::io::sink()).unwrap_err().to_string();
    assert!(text.contains(&page) && text.contains("offset"), "{text}");
    // The same contents again: only a page that is written anew can heal them.
    let mut writer = node.snapshots.begin(lsn).unwrap();
    writer.begin_arena("unchanging").unwrap();
    writer.write(&[42; 1000]).unwrap();
    writer.begin_arena("empty").unwrap();
    writer.begin_arena("records").unwrap();
    for record in &records[..lsn as usize - 1] {
        writer.write(&(record.len() as u32).to_le_bytes()).unwrap();
        writer.write(record).unwrap();
    }
    assert_eq!(writer.finish().unwrap().pages_written, 1);
    node = Node::open(&disk, SETTINGS).unwrap();
    assert!(node.records == records);
    assert_eq!(std::io::copy(&mut snapshot.open_arena("records").unwrap().unwrap(), &mut std::io::sink()).unwrap(), {
        records[..lsn as usize - 1].iter().map(|r| r.len() as u64 + 4).sum()
    });
}

type Records = Vec<Vec<u8>>;

/// A log of one segment: four committed batches, nothing behind them that declares the last one durable.
fn undeclared() -> (MemDisk, Vec<(u64, Records)>) {
    let mem = MemDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(mem.clone());
    let (mut log, _) = open_log(&disk, options(1 << 20, SyncPolicy::Never)).unwrap();
    let mut ends = vec![(log.bytes(), Vec::new())];
    for batch in 0..4 {
        let mut records = ends.last().unwrap().1.clone();
        let new: Vec<Vec<u8>> = (1..=2).map(|i| vec![batch * 2 + i; 20 + batch as usize]).collect();
        log.append(&new.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
        records.extend(new);
        ends.push((log.bytes(), records));
    }
    (mem, ends)
}

#[test]
fn the_tail_torn_at_every_byte_leaves_the_whole_frames_before_it() {
    let (mem, ends) = undeclared();
    let path = format!("{LOG_DIR}/00000000000000000001.log");
    let (header, end) = (ends[0].0, ends[4].0);
    for at in 0..end {
        for torn in ["cut off", "zeros", "hole", "noise"] {
            let disk: Arc<dyn Disk> = Arc::new(mem.fork());
            let file = disk.open_write(&path).unwrap();
            match torn {
                "cut off" => file.truncate(at).unwrap(),
                "zeros" => file.write_at(&vec![0; (end - at) as usize], at).unwrap(),
                "hole" => file.write_at(&[0; 40][..40.min((end - at) as usize)], at).unwrap(),
                _ => file.write_at(&vec![0xA5; (end - at) as usize], at).unwrap(),
            }
            drop(file);
            let context = format!("{torn} from byte {at} on");
            let opened = open_log(&disk, options(1 << 20, SyncPolicy::Always));
            if at < header {
                // A header is durable before the segment has its name, so here no crash was at work.
                let text = opened.err().expect(&context).to_string();
                assert!(text.contains(&path) && text.contains("offset"), "{context}: {text}");
                continue;
            }
            let (mut log, recovery) = opened.unwrap_or_else(|e| panic!("{context}: {e}"));
            let (whole, expected) = ends.iter().rfind(|(end, _)| *end <= at).unwrap();
            assert_eq!(replayed(&log, 1).unwrap(), *expected, "{context}");
            match torn {
                "cut off" => assert_eq!(recovery.torn_bytes_cut, at - whole, "{context}"),
                "zeros" => assert_eq!(recovery.torn_bytes_cut > 0, at > *whole, "{context}"),
                "hole" => assert_eq!(recovery.torn_bytes_cut > 0, at > *whole || at + 40 < end, "{context}"),
                _ => assert!(recovery.torn_bytes_cut > 0, "{context}"),
            }
            // What is written after the cut holds.
            log.append(&[b"new"]).unwrap();
            log.commit().unwrap();
            drop(log);
            let (log, recovery) = open_log(&disk, options(1 << 20, SyncPolicy::Always)).unwrap();
            assert_eq!(recovery.torn_bytes_cut, 0, "{context}: a tail is cut once");
            let mut expected = expected.clone();
            expected.push(b"new".to_vec());
            assert_eq!(replayed(&log, 1).unwrap(), expected, "{context}");
        }
    }
}

#[test]
fn frames_written_but_not_flushed_may_come_back_in_any_order_without_being_called_corrupt() {
    let (mem, ends) = undeclared();
    let path = format!("{LOG_DIR}/00000000000000000001.log");
    // The third frame is lost, the fourth is there: nothing says that the third was ever durable.
    assert!(mem.flip(&path, ends[2].0 + 50, 0xFF));
    let disk: Arc<dyn Disk> = Arc::new(mem);
    let (log, recovery) = open_log(&disk, options(1 << 20, SyncPolicy::Always)).unwrap();
    assert_eq!(replayed(&log, 1).unwrap(), ends[2].1);
    assert!(recovery.torn_bytes_cut >= ends[4].0 - ends[2].0);
}

#[test]
fn an_acknowledged_last_frame_that_rots_is_corrupt_and_stays_on_disk() {
    let mem = MemDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(mem.clone());
    let settings = options(1 << 20, SyncPolicy::Always);
    let (mut log, _) = open_log(&disk, settings).unwrap();
    log.append(&[b"acknowledged"]).unwrap();
    log.commit().unwrap();
    drop(log);
    let path = format!("{LOG_DIR}/00000000000000000001.log");
    let before = size(&mem, &path);
    for offset in 56..56 + 40 + 4 + 12 {
        let rotten = mem.fork();
        assert!(rotten.flip(&path, offset, 0x10));
        let shared: Arc<dyn Disk> = Arc::new(rotten.clone());
        let text = open_log(&shared, settings).err().unwrap().to_string();
        assert!(text.contains("corrupt at offset 56") && text.contains("declares it durable"), "{offset}: {text}");
        assert_eq!(size(&rotten, &path), before, "nothing was cut");
    }
}

#[test]
fn a_frame_of_another_place_never_verifies() {
    // The bytes of one collection's log under another's header, and an older segment's frames in a newer one.
    let (mem, ends) = undeclared();
    let disk: Arc<dyn Disk> = Arc::new(mem.clone());
    let mut frames = vec![0; (ends[4].0 - ends[0].0) as usize];
    let path = format!("{LOG_DIR}/00000000000000000001.log");
    disk.open_read(&path).unwrap().read_at(&mut frames, ends[0].0).unwrap();
    let other = vecino_storage::Log::open(disk.clone(), "other", [9; 16], SETTINGS).unwrap();
    drop(other);
    disk.open_write("other/00000000000000000001.log").unwrap().write_at(&frames, ends[0].0).unwrap();
    let (log, recovery) = vecino_storage::Log::open(disk, "other", [9; 16], SETTINGS).unwrap();
    assert_eq!((log.next_lsn(), recovery.torn_bytes_cut), (1, frames.len() as u64));
}

/// Two logs that differ in their first record only, so that the frames behind it fit in every way but the chain.
fn twins() -> [Arc<dyn Disk>; 2] {
    [b'a', b'b'].map(|first| {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let (mut log, _) = open_log(&disk, SETTINGS).unwrap();
        for byte in [first, b'-', b'-', b'-'] {
            log.append(&[&[byte; 500]]).unwrap();
            log.commit().unwrap();
        }
        assert_eq!(log.segments(), 2);
        disk
    })
}

fn copy(from: &dyn Disk, to: &dyn Disk, path: &str, offset: u64, bytes: usize) {
    let mut buffer = vec![0; bytes];
    assert_eq!(from.open_read(path).unwrap().read_at(&mut buffer, offset).unwrap(), bytes);
    to.open_write(path).unwrap().write_at(&buffer, offset).unwrap();
}

#[test]
fn a_frame_or_segment_of_another_history_is_corrupt() {
    let frame = 40 + 4 + 500;
    let [one, other] = twins();
    let first = format!("{LOG_DIR}/00000000000000000001.log");
    copy(&*other, &*one, &first, 56 + frame as u64 + 40, frame);
    let text = replayed(&open_log(&one, SETTINGS).unwrap().0, 1).unwrap_err().to_string();
    assert!(text.contains(&first) && text.contains("offset 640: a frame follows another frame"), "{text}");

    let [one, other] = twins();
    let second = format!("{LOG_DIR}/00000000000000000003.log");
    let bytes = size(&*one, &second) as usize;
    copy(&*other, &*one, &second, 0, bytes);
    let text = replayed(&open_log(&one, SETTINGS).unwrap().0, 1).unwrap_err().to_string();
    assert!(text.contains(&second) && text.contains("offset 48: the segment follows another frame"), "{text}");

    let [one, _] = twins();
    one.open_write(&first).unwrap().truncate(56 + frame as u64).unwrap();
    let text = replayed(&open_log(&one, SETTINGS).unwrap().0, 1).unwrap_err().to_string();
    assert!(text.contains("offset 600: the segment ends before lsn 2, but the next one begins with 3"), "{text}");
}

#[test]
fn damage_in_an_older_segment_is_never_taken_for_a_torn_tail() {
    let [one, _] = twins();
    let first = format!("{LOG_DIR}/00000000000000000001.log");
    let len = size(&*one, &first);
    for cut in [len - 1, len - 41, 700, 60] {
        let [one, _] = twins();
        one.open_write(&first).unwrap().truncate(cut).unwrap();
        let log = open_log(&one, SETTINGS).unwrap().0;
        assert!(replayed(&log, 1).is_err(), "{cut}");
        assert_eq!(size(&*one, &first), cut, "nothing more was cut");
        assert_eq!(replayed(&log, 3).unwrap().len(), 2, "what is behind it can still be read");
    }
}
