//! What the log promises while nothing breaks, and what it refuses.

use std::sync::Arc;

use vecino_storage::{
    BATCH_BYTES_MAX, Disk, Fault, FaultyDisk, Log, LogError, MemDisk, RECORD_BYTES_MAX, RealDisk, SyncPolicy,
};

use crate::world::{COLLECTION, LOG_DIR, open_log, options, record, replayed};

fn mem() -> (MemDisk, Arc<dyn Disk>) {
    let mem = MemDisk::new();
    (mem.clone(), Arc::new(mem))
}

fn append_all(log: &mut Log, records: &[Vec<u8>], batch: usize) {
    for batch in records.chunks(batch) {
        let slices: Vec<&[u8]> = batch.iter().map(Vec::as_slice).collect();
        log.append(&slices).unwrap();
        log.commit().unwrap();
    }
}

fn survives_reopening(disk: Arc<dyn Disk>) {
    let settings = options(10_000, SyncPolicy::Always);
    let records: Vec<Vec<u8>> = (1..=500).map(|lsn| record(3, lsn)).collect();
    let (mut log, recovery) = open_log(&disk, settings).unwrap();
    assert_eq!((recovery.first_lsn, recovery.next_lsn, recovery.torn_bytes_cut), (1, 1, 0));
    assert_eq!((log.durable_lsn(), log.next_lsn(), log.first_lsn()), (0, 1, 1));
    append_all(&mut log, &records, 7);
    assert_eq!((log.durable_lsn(), log.next_lsn()), (500, 501));
    assert!(log.segments() > 3);
    assert_eq!(replayed(&log, 1).unwrap(), records);
    drop(log);

    let (mut log, recovery) = open_log(&disk, settings).unwrap();
    assert_eq!((recovery.first_lsn, recovery.next_lsn, recovery.torn_bytes_cut), (1, 501, 0));
    assert_eq!(log.durable_lsn(), 500);
    for from in [1, 2, 250, 499, 500, 501] {
        assert_eq!(replayed(&log, from).unwrap(), records[from as usize - 1..], "from {from}");
    }
    let before = log.bytes();
    let freed = log.truncate_before(250).unwrap();
    assert!(freed > 10_000 && log.bytes() == before - freed, "{freed}");
    let first = log.first_lsn();
    assert!(first > 1 && first <= 250, "{first}");
    assert_eq!(replayed(&log, first).unwrap(), records[first as usize - 1..]);
    let refusal = replayed(&log, first - 1).unwrap_err();
    assert!(matches!(refusal, LogError::Missing { wanted, first: f, .. } if wanted == first - 1 && f == first));
    assert!(matches!(replayed(&log, 502).unwrap_err(), LogError::Behind { wanted: 502, next: 501, .. }));
    drop(log);

    let (mut log, recovery) = open_log(&disk, settings).unwrap();
    assert_eq!((recovery.first_lsn, recovery.next_lsn), (first, 501));
    assert_eq!(log.append(&[b"more"]).unwrap(), 501);
    log.truncate_before(u64::MAX).unwrap();
    assert_eq!(log.segments(), 1, "the newest segment stays");
    assert_eq!(replayed(&log, 501).unwrap(), [b"more"]);
}

#[test]
fn records_survive_reopening_on_every_disk() {
    let dir = tempfile::tempdir().unwrap();
    survives_reopening(Arc::new(RealDisk::new(dir.path().to_path_buf())));
    survives_reopening(Arc::new(MemDisk::new()));
    survives_reopening(Arc::new(FaultyDisk::new(Arc::new(MemDisk::new()))));
}

#[test]
fn reading_ends_where_its_caller_breaks_off_and_looks_at_nothing_behind() {
    use std::ops::ControlFlow;
    let (mem, disk) = mem();
    let (mut log, _) = open_log(&disk, options(10_000, SyncPolicy::Always)).unwrap();
    let records: Vec<Vec<u8>> = (1..=500).map(|lsn| record(3, lsn)).collect();
    append_all(&mut log, &records, 7);
    let second = log.second_segment_lsn().unwrap();
    let read = |log: &Log, from: u64, until: u64| {
        let mut read = Vec::new();
        log.read(from, &mut |lsn, record| {
            read.push(record.to_vec());
            if lsn == until { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .map(|()| read)
    };
    for (from, until) in [(1, 1), (1, second), (second - 1, second + 1), (490, 500), (490, 900)] {
        let expected = &records[from as usize - 1..until.min(500) as usize];
        assert_eq!(read(&log, from, until).unwrap(), expected, "{from}..={until}");
    }
    let last = mem.list(LOG_DIR).unwrap().pop().unwrap();
    mem.flip(&format!("{LOG_DIR}/{last}"), 200, 1);
    assert_eq!(read(&log, 1, second).unwrap().len() as u64, second);
    assert!(read(&log, 1, 500).is_err());
    let freed = log.truncate_before(second).unwrap();
    assert!(freed > 0 && log.first_lsn() == second);
    log.truncate_before(u64::MAX).unwrap();
    assert_eq!(log.second_segment_lsn(), None);
}

#[test]
fn a_batch_is_numbered_from_its_first_record_and_an_empty_one_changes_nothing() {
    let (_, disk) = mem();
    let (mut log, _) = open_log(&disk, options(1 << 20, SyncPolicy::Always)).unwrap();
    assert_eq!(log.append(&[b"a", b"", b"c"]).unwrap(), 1);
    let bytes = log.bytes();
    assert_eq!(log.append(&[]).unwrap(), 4);
    assert_eq!(log.bytes(), bytes);
    assert_eq!(log.append(&[b"d"]).unwrap(), 4);
    assert_eq!(log.durable_lsn(), 0, "nothing is durable before it is committed");
    assert_eq!(log.commit().unwrap(), 4);
    assert_eq!(replayed(&log, 1).unwrap(), [&b"a"[..], b"", b"c", b"d"]);
}

#[test]
fn a_batch_larger_than_a_frame_is_split_and_one_over_the_limit_refused() {
    let (_, disk) = mem();
    let (mut log, _) = open_log(&disk, options(1 << 20, SyncPolicy::Never)).unwrap();
    let large = vec![7; RECORD_BYTES_MAX];
    let batch = [&large[..], b"small", &large[..16 << 20], &large[..17 << 20]];
    assert_eq!(log.append(&batch).unwrap(), 1);
    assert_eq!(log.append(&[b"next"]).unwrap(), 5);
    drop(log);
    let (mut log, _) = open_log(&disk, options(1 << 20, SyncPolicy::Never)).unwrap();
    let back = replayed(&log, 1).unwrap();
    assert_eq!(back.iter().map(Vec::len).collect::<Vec<_>>(), [RECORD_BYTES_MAX, 5, 16 << 20, 17 << 20, 4]);
    assert!(back[0] == large && back[3] == large[..17 << 20]);

    let bytes = log.bytes();
    let too_large = vec![7; RECORD_BYTES_MAX + 1];
    let refusal = log.append(&[b"fine", &too_large]).unwrap_err().to_string();
    assert_eq!(
        refusal,
        format!("record 1 of the batch has {} bytes, the limit is {RECORD_BYTES_MAX}", too_large.len())
    );
    let refusal = log.append(&[&large[..]; 9]).unwrap_err();
    assert!(matches!(refusal, LogError::BatchTooLarge { bytes } if bytes > BATCH_BYTES_MAX), "{refusal}");
    assert_eq!((log.bytes(), log.next_lsn()), (bytes, 6), "what is refused leaves nothing");
}

#[test]
fn the_policy_decides_when_a_commit_flushes() {
    for (sync, committed) in [
        (SyncPolicy::Always, 1),
        (SyncPolicy::EveryMs(0), 1),
        (SyncPolicy::EveryMs(3_600_000), 0),
        (SyncPolicy::Never, 0),
    ] {
        let (mem, disk) = mem();
        let (mut log, _) = open_log(&disk, options(1 << 20, sync)).unwrap();
        log.append(&[b"x"]).unwrap();
        assert_eq!(log.flush_due().is_some(), matches!(sync, SyncPolicy::EveryMs(_)), "{sync:?}");
        assert_eq!(log.commit().unwrap(), committed, "{sync:?}");
        assert_eq!(log.durable_lsn(), committed, "{sync:?}");
        let lost = (0..20).filter(|seed| {
            let fork = mem.fork();
            fork.crash(*seed);
            open_log(&(Arc::new(fork) as Arc<dyn Disk>), options(1 << 20, sync)).unwrap().0.next_lsn() == 1
        });
        assert_eq!(lost.count() > 0, committed == 0, "{sync:?}");
        assert_eq!(log.flush().unwrap(), 1, "{sync:?}");
        assert_eq!(log.flush_due(), None);
        for seed in 0..20 {
            let fork = mem.fork();
            fork.crash(seed);
            let (log, _) = open_log(&(Arc::new(fork) as Arc<dyn Disk>), options(1 << 20, sync)).unwrap();
            assert_eq!(replayed(&log, 1).unwrap(), [b"x"], "{sync:?}");
        }
    }
}

#[test]
fn a_failed_flush_poisons_until_reopened_and_reopening_flushes_what_is_there() {
    let (mem, disk) = mem();
    let faulty = FaultyDisk::new(disk.clone());
    let shared: Arc<dyn Disk> = Arc::new(faulty.clone());
    let settings = options(1 << 20, SyncPolicy::Always);
    let (mut log, _) = open_log(&shared, settings).unwrap();
    log.append(&[b"one"]).unwrap();
    log.commit().unwrap();
    log.append(&[b"two"]).unwrap();
    faulty.set(Fault::EverySync);
    assert!(matches!(log.commit().unwrap_err(), LogError::Io { action: "flush", .. }));
    faulty.heal();
    assert_eq!(log.durable_lsn(), 1);
    for refusal in [
        log.append(&[b"three"]).unwrap_err(),
        log.append(&[]).unwrap_err(),
        log.commit().unwrap_err(),
        log.flush().unwrap_err(),
        log.truncate_before(1).unwrap_err(),
        replayed(&log, 1).unwrap_err(),
    ] {
        assert!(matches!(refusal, LogError::Poisoned { .. }), "{refusal}");
        assert!(refusal.to_string().contains("injected fault"), "the reason is told: {refusal}");
    }
    drop(log);
    let (log, recovery) = open_log(&shared, settings).unwrap();
    assert_eq!((recovery.next_lsn, log.durable_lsn()), (3, 2));
    drop(log);
    for seed in 0..20 {
        let fork = mem.fork();
        fork.crash(seed);
        let (log, _) = open_log(&(Arc::new(fork) as Arc<dyn Disk>), settings).unwrap();
        assert_eq!(replayed(&log, 1).unwrap(), [b"one", b"two"], "what was seen after reopening stays");
    }
}

#[test]
fn opening_again_and_again_adds_nothing() {
    let (mem, disk) = mem();
    let settings = options(1 << 20, SyncPolicy::Never);
    let (mut log, _) = open_log(&disk, settings).unwrap();
    log.append(&[b"x"]).unwrap();
    drop(log);
    let (log, _) = open_log(&disk, settings).unwrap();
    let bytes = log.bytes();
    drop(log);
    let operations = FaultyDisk::new(Arc::new(mem));
    let shared: Arc<dyn Disk> = Arc::new(operations.clone());
    for _ in 0..3 {
        assert_eq!(open_log(&shared, settings).unwrap().0.bytes(), bytes);
    }
    assert_eq!(operations.operations(), 3 * 3, "its directory is made sure of, and the declaration at its end written");
}

#[test]
fn a_failing_caller_is_told_which_record_it_failed_on() {
    let (_, disk) = mem();
    let (mut log, _) = open_log(&disk, options(1 << 20, SyncPolicy::Always)).unwrap();
    log.append(&[b"a", b"b"]).unwrap();
    let refusal = log.replay(1, &mut |lsn, _| if lsn == 2 { Err("no such field".into()) } else { Ok(()) }).unwrap_err();
    assert_eq!(refusal.to_string(), "record 2 of the log cannot be applied: no such field");
}

#[test]
fn the_log_of_another_collection_is_refused() {
    let (_, disk) = mem();
    let settings = options(1 << 20, SyncPolicy::Always);
    drop(open_log(&disk, settings).unwrap());
    let refusal = Log::open(disk, LOG_DIR, [0xAB; 16], settings).err().unwrap().to_string();
    let own: String = COLLECTION.iter().map(|b| format!("{b:02x}")).collect();
    assert!(refusal.contains(&own) && refusal.contains(&"ab".repeat(16)), "{refusal}");
}

#[test]
fn temporary_files_are_removed_and_foreign_ones_left_alone() {
    let (_, disk) = mem();
    let settings = options(1 << 20, SyncPolicy::Always);
    drop(open_log(&disk, settings).unwrap());
    for name in ["00000000000000000009.log.tmp", "notes.txt", "9.log"] {
        disk.create(&format!("{LOG_DIR}/{name}")).unwrap();
    }
    drop(open_log(&disk, settings).unwrap());
    assert_eq!(disk.list(LOG_DIR).unwrap(), ["00000000000000000001.log", "9.log", "notes.txt"]);
}

#[test]
fn a_missing_segment_in_the_middle_is_an_error_that_names_the_file() {
    let (_, disk) = mem();
    let settings = options(1000, SyncPolicy::Always);
    let (mut log, _) = open_log(&disk, settings).unwrap();
    append_all(&mut log, &(1..=100).map(|lsn| record(5, lsn)).collect::<Vec<_>>(), 3);
    drop(log);
    let names = disk.list(LOG_DIR).unwrap();
    disk.remove(&format!("{LOG_DIR}/{}", names[2])).unwrap();
    let refusal = open_log(&disk, settings).err().unwrap();
    assert!(matches!(&refusal, LogError::Corrupt { file, offset: 32, .. } if file.ends_with(&names[3])), "{refusal}");
}

#[test]
fn a_small_log_takes_little_of_the_real_disk_and_a_full_segment_no_more_than_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(dir.path().to_path_buf()));
    let (mut log, _) = open_log(&disk, options(300_000, SyncPolicy::Always)).unwrap();
    log.append(&[&[1; 100]]).unwrap();
    log.commit().unwrap();
    let size = |name: &str| dir.path().join(LOG_DIR).join(name).metadata().unwrap().len();
    assert!(size("00000000000000000001.log") <= 128 * 1024);
    for _ in 0..4 {
        log.append(&[&[1; 100_000]]).unwrap();
    }
    assert_eq!(log.segments(), 2);
    assert_eq!(log.bytes() - size("00000000000000000001.log"), 56 + 2 * (44 + 100_000));
}

#[test]
fn room_is_reserved_ahead_so_that_a_full_disk_shows_before_anything_is_written() {
    let (mem, disk) = mem();
    let (mut log, _) = open_log(&disk, options(10 << 20, SyncPolicy::Always)).unwrap();
    let len = |disk: &dyn Disk| disk.open_read(&format!("{LOG_DIR}/00000000000000000001.log")).unwrap().len().unwrap();
    log.append(&[b"x"]).unwrap();
    assert!(len(&*disk) >= 64 * 1024 && len(&*disk) <= 128 * 1024, "{}", len(&*disk));
    let reserved = len(&*disk);
    drop(log);
    let faulty = FaultyDisk::new(Arc::new(mem));
    let shared: Arc<dyn Disk> = Arc::new(faulty.clone());
    let (mut log, _) = open_log(&shared, options(10 << 20, SyncPolicy::Always)).unwrap();
    faulty.set(Fault::Room(0));
    let before = faulty.operations();
    assert!(matches!(log.append(&[&vec![1; 3 << 20]]).unwrap_err(), LogError::Full { action: "reserve room in", .. }));
    assert_eq!(faulty.operations(), before + 1, "it asked for room and wrote nothing");
    assert_eq!(len(&*disk), reserved);
    log.append(&[b"fits into what is reserved"]).unwrap();
}

#[test]
fn a_batch_that_was_refused_never_comes_back_though_all_of_it_was_written() {
    let mut crashes = 0;
    for seed in 0..100 {
        let (mem, disk) = mem();
        let faulty = FaultyDisk::new(disk.clone());
        let shared: Arc<dyn Disk> = Arc::new(faulty.clone());
        let settings = options(1 << 20, SyncPolicy::Always);
        let (mut log, _) = open_log(&shared, settings).unwrap();
        log.append(&[b"kept"]).unwrap();
        log.commit().unwrap();
        faulty.set(Fault::NthDone(faulty.operations() + 1, std::io::ErrorKind::StorageFull));
        assert!(matches!(log.append(&[b"refused"]).unwrap_err(), LogError::Full { action: "write", .. }));
        assert_eq!(log.next_lsn(), 2);
        crashes += mem.crash(seed).sectors_lost;
        let (log, _) = open_log(&disk, settings).unwrap();
        assert_eq!(replayed(&log, 1).unwrap(), [b"kept"], "seed {seed}");
    }
    assert_eq!(crashes, 0, "all that was written was flushed, the cut too");
}
