//! What is kept is handed over, over restarts too, and everything is bounded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use vecino_model::{CollectionId, Fields, NodeId, RawPayload, Record, RecordValue, Version};
use vecino_storage::{Disk, MemDisk};

use super::batch::BATCH_RECORDS_MAX;
use super::held::HELD_BYTES_MAX;
use super::log::{HINTS, folder};
use super::{HintLimits, HintLogs};

const ONE: CollectionId = CollectionId([1; 16]);
const OTHER: CollectionId = CollectionId([2; 16]);
const HOUR_MS: u64 = 3_600_000;

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

fn record(id: u64, bytes: usize) -> Record {
    let value = Some(RecordValue { vectors: Fields::new(), payload: RawPayload::from_bytes(vec![0; bytes]) });
    Record { id: id.into(), version: Version { time: id, node: node(9), seq: 0 }, value }
}

fn open(disk: &MemDisk) -> HintLogs {
    HintLogs::open(Arc::new(disk.clone()), HintLimits::default())
}

/// Takes everything that waits for a node; gives the numbers of the points.
fn drain(hints: &mut HintLogs, of: NodeId, now_ms: u64) -> Vec<u64> {
    let mut ids = Vec::new();
    while let Some(batch) = hints.next(of, now_ms).unwrap() {
        ids.extend(batch.records.iter().map(|record| record.version.time));
        hints.taken(of, batch.last_lsn).unwrap();
    }
    ids
}

#[test]
fn what_a_node_missed_is_handed_over_in_order_one_collection_at_a_time() {
    let mut hints = open(&MemDisk::new());
    assert_eq!(hints.keep(node(1), ONE, vec![record(1, 10), record(2, 10)], 0), 2);
    assert_eq!(hints.keep(node(1), OTHER, vec![record(3, 10)], 0), 3);
    assert_eq!(hints.keep(node(2), ONE, vec![record(4, 10)], 0), 1);
    let first = hints.next(node(1), 0).unwrap().unwrap();
    assert_eq!((first.collection, &first.records[..]), (ONE, &[record(1, 10), record(2, 10)][..]));
    assert_eq!(hints.next(node(1), 0).unwrap().unwrap(), first, "kept until it is taken");
    assert_eq!(hints.taken(node(1), first.last_lsn).unwrap(), 1);
    let rest = hints.next(node(1), 0).unwrap().unwrap();
    assert_eq!((rest.collection, &rest.records[..]), (OTHER, &[record(3, 10)][..]));
    assert_eq!(hints.taken(node(1), rest.last_lsn).unwrap(), 0);
    assert_eq!(hints.next(node(1), 0).unwrap(), None);
    assert_eq!(hints.waiting(), BTreeMap::from([(node(2), 1)]));
    assert_eq!(hints.forgotten(), 0);
}

#[test]
fn hints_outlive_a_kill_and_what_was_flushed_a_power_cut() {
    let disk = MemDisk::new();
    let mut hints = open(&disk);
    hints.keep(node(1), ONE, vec![record(1, 10), record(2, 10)], 0);
    drop(hints);
    let mut hints = open(&disk);
    assert_eq!(hints.waiting(), BTreeMap::from([(node(1), 2)]), "a process that is killed has lost nothing");
    hints.keep(node(1), ONE, vec![record(3, 10)], 0);
    hints.flush();
    hints.keep(node(1), ONE, vec![record(4, 10)], 0);
    drop(hints);
    for seed in 0..20 {
        let after = disk.fork();
        after.crash(seed);
        let ids = drain(&mut open(&after), node(1), 0);
        assert!(ids == [1, 2, 3] || ids == [1, 2, 3, 4], "seed {seed}: {ids:?}");
        assert_eq!(after.list(HINTS).unwrap(), Vec::<String>::new(), "nothing is left of what was taken");
    }
}

#[test]
fn what_was_taken_is_not_handed_over_again_but_for_a_restart() {
    let disk = MemDisk::new();
    let limits = HintLimits { segment_bytes: 2_000, ..HintLimits::default() };
    let mut hints = HintLogs::open(Arc::new(disk.clone()), limits);
    for id in 0..2_500 {
        hints.keep(node(1), ONE, vec![record(id, 10)], 0);
    }
    let first = hints.next(node(1), 0).unwrap().unwrap();
    assert_eq!(first.records.len(), BATCH_RECORDS_MAX);
    assert_eq!(hints.taken(node(1), first.last_lsn).unwrap(), 1_500);
    drop(hints);
    let again = drain(&mut HintLogs::open(Arc::new(disk), limits), node(1), 0);
    assert!((1..=1_000).contains(&again[0]), "whole files are gone: {}", again[0]);
    assert_eq!(again, (again[0]..2_500).collect::<Vec<_>>());
}

#[test]
fn hints_are_bounded_in_bytes_and_in_age() {
    let limits = HintLimits { bytes_max: 64_000, age_max: Duration::from_secs(3 * 3600), segment_bytes: 4_000 };
    let mut hints = HintLogs::open(Arc::new(MemDisk::new()), limits);
    for id in 0..300 {
        hints.keep(node(1 + (id % 2) as u8), ONE, vec![record(id, 1_000)], id * HOUR_MS / 100);
    }
    assert!(hints.bytes() <= limits.bytes_max, "{}", hints.bytes());
    let waiting: u64 = hints.waiting().values().sum();
    assert_eq!(waiting + hints.forgotten(), 300);
    assert!(waiting > 40, "{waiting} of 64 that would fit");
    let ids = drain(&mut hints, node(2), 3 * HOUR_MS);
    assert_eq!(*ids.last().unwrap(), 299, "the newest stay");
    assert!(ids.windows(2).all(|pair| pair[1] == pair[0] + 2), "{ids:?}");
    let before = hints.forgotten();
    assert_eq!(hints.next(node(1), 20 * HOUR_MS).unwrap(), None, "all of them are too old");
    assert_eq!(hints.forgotten(), 300 - ids.len() as u64, "{before} before");
    assert!(hints.waiting().is_empty());
}

#[test]
fn what_a_full_disk_does_not_take_is_held_in_memory_within_a_bound() {
    use vecino_storage::{Fault, FaultyDisk};
    let mem = MemDisk::new();
    let disk = FaultyDisk::new(Arc::new(mem.clone()));
    let mut hints = HintLogs::open(Arc::new(disk.clone()), HintLimits::default());
    hints.keep(node(1), ONE, vec![record(1, 10)], 0);
    disk.set(Fault::Room(0));
    assert_eq!(hints.keep(node(1), ONE, vec![record(2, 1 << 20)], 0), 2);
    assert_eq!(hints.keep(node(2), ONE, vec![record(3, 10)], 0), 1);
    hints.keep(node(2), OTHER, vec![record(4, 10)], 0);
    hints.flush();
    assert_eq!(hints.waiting(), BTreeMap::from([(node(1), 2), (node(2), 2)]));
    assert_eq!(drain(&mut open(&mem.fork()), node(1), 0), [1], "what is on the disk");
    assert_eq!(drain(&mut hints, node(2), 0), [3, 4], "from memory alone");
    hints.keep(node(2), ONE, vec![record(5, 10)], 0);
    disk.heal();
    hints.flush();
    assert_eq!(hints.held_bytes(), 0);
    assert_eq!(HintLogs::open(Arc::new(mem), HintLimits::default()).waiting(), hints.waiting(), "it is on the disk");
    assert_eq!((drain(&mut hints, node(1), 0), drain(&mut hints, node(2), 0)), (vec![1, 2], vec![5]));
    disk.set(Fault::Room(0));
    for id in 0..40 {
        hints.keep(node(1 + (id % 2) as u8), ONE, vec![record(id, 1 << 20)], id);
    }
    assert!(hints.held_bytes() <= HELD_BYTES_MAX && hints.forgotten() > 20, "{}", hints.forgotten());
    let age_ms = HintLimits::default().age_max.as_millis() as u64;
    assert_eq!(drain(&mut hints, node(2), age_ms + 38), [39], "the oldest went first, and others were too old");
    hints.hold_at_most(0);
    assert!(hints.waiting().is_empty());
}

#[test]
fn damage_is_given_up_and_what_comes_later_is_kept() {
    let disk = MemDisk::new();
    let mut hints = open(&disk);
    for id in 0..20 {
        hints.keep(node(1), ONE, vec![record(id, 100)], 0);
    }
    hints.flush();
    drop(hints);
    let path = format!("{}/{}", folder(node(1)), disk.list(&folder(node(1))).unwrap()[0]);
    disk.flip(&path, 500, 4);
    let mut hints = open(&disk);
    while hints.next(node(1), 0).is_err() {}
    hints.keep(node(1), ONE, vec![record(30, 100)], 0);
    assert_eq!(drain(&mut hints, node(1), 0).last(), Some(&30));
    assert!(hints.forgotten() > 0);
}
