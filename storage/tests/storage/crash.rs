//! Power cuts at every operation of random workloads, and again while recovering.

use std::io::ErrorKind;
use std::sync::Arc;

use fastrand::Rng;
use vecino_storage::{Disk, Fault, FaultyDisk, LogOptions, MemDisk, SyncPolicy};

use crate::world::{Node, Promise, options, work};

const STEPS: usize = 40;

fn policy(seed: u64) -> SyncPolicy {
    [SyncPolicy::Always, SyncPolicy::Always, SyncPolicy::Never, SyncPolicy::EveryMs(0)][seed as usize % 4]
}

fn small(seed: u64) -> LogOptions {
    options([600, 3000, 20_000][seed as usize % 3], policy(seed / 3))
}

/// One run that stops at operation `at`; returns how far it came, and how many operations it took if it was not stopped.
fn run(seed: u64, disk: &FaultyDisk) -> (Promise, u64) {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut promise = Promise::default();
    let mut rng = Rng::with_seed(seed);
    if let Ok(mut node) = Node::open(&shared, small(seed)) {
        let _ = work(&mut node, &mut promise, &mut rng, seed, STEPS);
    }
    (promise, disk.operations())
}

/// Cuts the power at every operation of one workload; returns how many cuts that were.
fn cut_everywhere(seed: u64) -> u64 {
    let (_, operations) = run(seed, &FaultyDisk::new(Arc::new(MemDisk::new())));
    let mut rng = Rng::with_seed(seed ^ 0xC0FFEE);
    let mut cuts = 0;
    for at in 1..=operations {
        let context = format!("seed {seed}, power cut at operation {at} of {operations}");
        let mem = MemDisk::new();
        let disk = FaultyDisk::new(Arc::new(mem.clone()));
        disk.set(Fault::Halt { at, done: rng.bool() });
        let (mut promise, _) = run(seed, &disk);
        mem.crash(rng.u64(..));
        cuts += 1;
        // Now and then the power goes again while recovering.
        for again in 1..=rng.u64(..3) {
            let disk = FaultyDisk::new(Arc::new(mem.clone()));
            disk.set(Fault::Halt { at: again + rng.u64(..4), done: rng.bool() });
            let shared: Arc<dyn Disk> = Arc::new(disk);
            if let Ok(node) = Node::open(&shared, small(seed)) {
                promise.check(&node, &context);
                promise.durable = promise.durable.max(node.log.durable_lsn());
            }
            mem.crash(rng.u64(..));
            cuts += 1;
        }
        let shared: Arc<dyn Disk> = Arc::new(mem.clone());
        let mut node = Node::open(&shared, small(seed)).unwrap_or_else(|e| panic!("{context}: {e}"));
        promise.check(&node, &context);
        // Whoever has seen the records may rely on them from here on.
        promise.durable = node.records.len() as u64;
        promise.tried.truncate(node.records.len());
        work(&mut node, &mut promise, &mut rng, seed + 1, 6).unwrap_or_else(|e| panic!("{context}, going on: {e}"));
        drop(node);
        mem.crash(rng.u64(..));
        let node = Node::open(&shared, small(seed)).unwrap_or_else(|e| panic!("{context}, second life: {e}"));
        promise.check(&node, &context);
    }
    cuts
}

#[test]
fn whatever_was_acknowledged_survives_a_power_cut_at_every_operation() {
    let cuts: u64 = (0..SEEDS).map(cut_everywhere).sum();
    println!("{cuts} power cuts in {SEEDS} workloads");
    assert!(cuts > 10_000, "{cuts}");
}

/// The control: were the flushes left out, the test above would notice.
#[test]
fn the_power_cut_test_finds_a_disk_that_does_not_flush() {
    let found = (0..40).filter(|seed| {
        let mem = MemDisk::new();
        let disk = FaultyDisk::new(Arc::new(mem.clone()));
        disk.set(Fault::LyingSync);
        let (promise, _) = run(*seed, &disk);
        mem.crash(seed ^ 7);
        let shared: Arc<dyn Disk> = Arc::new(mem);
        match Node::open(&shared, small(*seed)) {
            Ok(node) => (node.records.len() as u64) < promise.durable,
            Err(_) => true,
        }
    });
    assert!(found.count() > 20);
}

/// A killed process loses nothing that append has taken, flushed or not: the system still has it.
#[test]
fn a_kill_at_every_operation_loses_nothing_that_was_appended() {
    for seed in 0..24 {
        let (_, operations) = run(seed, &FaultyDisk::new(Arc::new(MemDisk::new())));
        for at in 1..=operations {
            let mem = MemDisk::new();
            let disk = FaultyDisk::new(Arc::new(mem.clone()));
            disk.set(Fault::Halt { at, done: at % 2 == 0 });
            let shared: Arc<dyn Disk> = Arc::new(disk.clone());
            let mut promise = Promise::default();
            if let Ok(mut node) = Node::open(&shared, small(seed)) {
                let _ = work(&mut node, &mut promise, &mut Rng::with_seed(seed), seed, STEPS);
                promise.durable = promise.durable.max(node.records.len() as u64);
            }
            let shared: Arc<dyn Disk> = Arc::new(mem.clone());
            let context = format!("seed {seed}, kill at operation {at}");
            let node = Node::open(&shared, small(seed)).unwrap_or_else(|e| panic!("{context}: {e}"));
            promise.check(&node, &context);
            // What came back after the kill is durable from then on, whatever the dead process had left unflushed.
            drop(node);
            mem.crash(at);
            let node = Node::open(&shared, small(seed)).unwrap_or_else(|e| panic!("{context}, then a power cut: {e}"));
            promise.check(&node, &context);
        }
    }
}

/// Lives three lives on a disk that may fail, ends in a power cut, and comes back on one that is well again.
fn three_lives(seed: u64, mem: &MemDisk, disk: &FaultyDisk, context: &str) {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut promise = Promise::default();
    let mut rng = Rng::with_seed(seed);
    for _ in 0..3 {
        // Opening may be what fails, once.
        let Ok(mut node) = Node::open(&shared, small(seed)) else { continue };
        promise.check(&node, context);
        promise.durable = promise.durable.max(node.log.durable_lsn());
        let _ = work(&mut node, &mut promise, &mut rng, seed, STEPS / 2);
    }
    disk.heal();
    mem.crash(rng.u64(..));
    // Where the fault is still to come, it may come now, and coming back takes a second try.
    if Node::open(&shared, small(seed)).is_err() {
        mem.crash(rng.u64(..));
    }
    let node = Node::open(&shared, small(seed)).unwrap_or_else(|e| panic!("{context}: {e}"));
    promise.check(&node, context);
}

#[test]
fn one_failing_operation_anywhere_loses_nothing() {
    for seed in 0..24 {
        let (_, operations) = run(seed, &FaultyDisk::new(Arc::new(MemDisk::new())));
        for at in 1..=operations {
            for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
                for fault in [Fault::Nth(at, kind), Fault::NthDone(at, kind)] {
                    let mem = MemDisk::new();
                    let disk = FaultyDisk::new(Arc::new(mem.clone()));
                    disk.set(fault);
                    three_lives(seed, &mem, &disk, &format!("seed {seed}, {fault:?}"));
                }
            }
        }
    }
}

#[test]
fn a_flush_that_fails_once_and_then_lies_loses_nothing() {
    for seed in 0..48 {
        for flush in 1..40 {
            let mem = MemDisk::new();
            mem.fail_flush(flush);
            let disk = FaultyDisk::new(Arc::new(mem.clone()));
            three_lives(seed, &mem, &disk, &format!("seed {seed}, flush {flush} fails"));
        }
    }
}

#[test]
fn a_disk_that_fills_while_it_is_written_loses_nothing_and_keeps_nothing_that_it_refused() {
    for seed in 0..48 {
        for room in (0..12_000).step_by(397) {
            let mem = MemDisk::new();
            let disk = FaultyDisk::new(Arc::new(mem.clone()));
            disk.set(Fault::CannotReserve);
            disk.set(Fault::Room(room));
            three_lives(seed, &mem, &disk, &format!("seed {seed}, room for {room} bytes"));
        }
    }
}

const SEEDS: u64 = 96;
