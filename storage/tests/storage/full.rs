//! A disk that fills up at every possible byte.

use std::sync::Arc;

use vecino_storage::{Disk, Fault, FaultyDisk, LogError, MemDisk, SnapshotError, SnapshotStore, SyncPolicy};

use crate::world::{SNAPSHOT_DIR, open_log, options, record, replayed};

#[test]
fn a_full_disk_refuses_a_batch_whole_and_the_log_goes_on_when_there_is_room() {
    for sync in [SyncPolicy::Always, SyncPolicy::Never] {
        for room in (0..12_000).step_by(61) {
            let settings = options(2500, sync);
            let faulty = FaultyDisk::new(Arc::new(MemDisk::new()));
            let disk: Arc<dyn Disk> = Arc::new(faulty.clone());
            let (mut log, _) = open_log(&disk, settings).unwrap();
            faulty.set(Fault::Room(room));
            let mut taken: Vec<Vec<u8>> = Vec::new();
            let mut next = || {
                let lsn = taken.len() as u64 + 1;
                let batch = [record(1, lsn), record(1, lsn + 1)];
                let result = log.append(&[&batch[0], &batch[1]]).and_then(|first| {
                    assert_eq!(first, lsn);
                    taken.extend(batch);
                    log.commit()
                });
                result.map(|_| taken.len())
            };
            let refusal = loop {
                match next() {
                    Ok(records) => assert!(records < 5000, "the disk never filled"),
                    Err(error) => break error,
                }
            };
            assert!(matches!(refusal, LogError::Full { .. }), "room {room}: {refusal}");
            assert!(refusal.to_string().contains("disk full"), "{refusal}");
            assert!(matches!(next(), Err(LogError::Full { .. }) | Ok(_)), "being full is no poison");
            faulty.set(Fault::Room(1 << 20));
            next().unwrap();
            next().unwrap();
            assert_eq!(replayed(&log, 1).unwrap(), taken, "room {room}");
            drop(log);
            let (log, recovery) = open_log(&disk, settings).unwrap();
            assert_eq!(recovery.torn_bytes_cut, 0, "room {room}");
            assert_eq!(replayed(&log, 1).unwrap(), taken, "room {room}");
        }
    }
}

#[test]
fn a_disk_too_full_for_a_snapshot_keeps_the_one_before_and_nothing_else() {
    let mem = MemDisk::new();
    let plain: Arc<dyn Disk> = Arc::new(mem.clone());
    let pages = format!("{SNAPSHOT_DIR}/pages");
    let take = |store: &SnapshotStore, lsn: u64| -> Result<(), SnapshotError> {
        let mut writer = store.begin(lsn)?;
        let mut write = || {
            for arena in 0..4u8 {
                writer.begin_arena(&format!("arena {arena}"))?;
                writer.write(&vec![arena ^ lsn as u8; 3000])?;
            }
            Ok::<_, std::io::Error>(())
        };
        if let Err(error) = write() {
            return Err(error.downcast::<SnapshotError>().unwrap());
        }
        writer.finish().map(drop)
    };
    take(&SnapshotStore::open(plain.clone(), SNAPSHOT_DIR).unwrap(), 16).unwrap();
    let names = plain.list(&pages).unwrap();
    assert_eq!(names.len(), 4);
    let mut refused = 0;
    for room in (0..15_000).step_by(111) {
        let faulty = FaultyDisk::new(Arc::new(mem.fork()));
        let disk: Arc<dyn Disk> = Arc::new(faulty.clone());
        let store = SnapshotStore::open(disk.clone(), SNAPSHOT_DIR).unwrap();
        faulty.set(Fault::Room(room));
        match take(&store, 64) {
            Ok(()) => assert!(room > 12_000, "{room}"),
            Err(error) => {
                assert!(matches!(error, SnapshotError::Full { .. }), "room {room}: {error}");
                assert_eq!(store.latest().unwrap().unwrap().lsn(), 16);
                assert_eq!(disk.list(&pages).unwrap(), names, "room {room}: what was written is taken back");
                faulty.set(Fault::Room(1 << 20));
                take(&store, 64).unwrap();
                refused += 1;
            }
        }
        assert_eq!(SnapshotStore::open(disk, SNAPSHOT_DIR).unwrap().latest().unwrap().unwrap().lsn(), 64);
    }
    assert!(refused > 100, "{refused}");
}
