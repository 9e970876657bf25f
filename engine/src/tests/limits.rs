//! A node that runs out of memory or of disk: what is refused, with which words, and what goes on.

use std::io::ErrorKind;

use super::*;
use crate::ballast::{BALLAST_FILE, Ballast};
use crate::memory::Budget;

/// Bytes of ballast here: room for many deletes, and small beside a put.
const BALLAST: u64 = 512 * 1024;

impl Lab {
    fn try_open(&self, disk: Arc<dyn Disk>, resources: &Arc<Resources>) -> Result<Collection, OpenError> {
        let (indexers, runtime) = (Arc::clone(&self.indexers), self.runtime.handle().clone());
        Collection::open(disk, "films", resources.share("films"), CollectionId([1; 16]), schema(), indexers, runtime)
    }
}

fn limited(limit: u64) -> Arc<Resources> {
    Arc::new(Resources { memory: Budget::new(limit, 0), ballast: Ballast::none() })
}

fn is_written(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Written(_))
}

#[track_caller]
fn assert_unavailable(outcome: &Outcome, saying: &[&str]) {
    let Outcome::Unavailable(reason) = outcome else { panic!("{outcome:?}") };
    assert!(saying.iter().all(|words| reason.contains(words)), "{saying:?} is not all in {reason:?}");
}

#[test]
fn puts_over_the_memory_limit_are_refused_before_they_are_logged_and_deletes_and_reads_go_on() {
    let lab = Lab::new();
    let resources = limited(200_000);
    let collection = lab.try_open(Arc::new(lab.disk.clone()), &resources).unwrap();
    let mut oracle = BTreeMap::new();
    let refused = (1..).step_by(10).find_map(|first: u64| {
        let batch: Vec<Record> = (first..first + 10).map(|id| put(id, id)).collect();
        let outcomes = lab.apply(&collection, batch.clone());
        assert!(resources.memory.used() <= 200_000, "{} bytes are used", resources.memory.used());
        let written = batch.into_iter().zip(&outcomes).filter(|(_, outcome)| is_written(outcome));
        oracle.extend(written.map(|(record, _)| (record.id.to_string().parse::<u64>().unwrap(), record)));
        outcomes.into_iter().find(|outcome| !is_written(outcome))
    });
    assert!(oracle.len() > 100, "{} points fit", oracle.len());
    assert_unavailable(&refused.unwrap(), &["\"films\"", "195.3 KiB", "--memory-limit"]);
    // A batch that is smaller may still fit.
    for id in 5_000.. {
        if !is_written(&lab.apply(&collection, vec![put(id, id)])[0]) {
            break;
        }
        oracle.insert(id, put(id, id));
    }
    check(&collection, &oracle);
    // Deletes are taken in the same batch with puts that are not.
    let outcomes = lab.apply(&collection, vec![put(9_999, 20_000), delete(1, 20_001)]);
    assert_unavailable(&outcomes[0], &["limit"]);
    assert_eq!(outcomes[1], Outcome::Written(version(20_001)));
    oracle.insert(1, delete(1, 20_001));
    check(&collection, &oracle);
    // What was refused is not in the log: it is not there after a restart either, and everything else fits again.
    collection.close();
    drop(collection);
    assert_eq!(resources.memory.used(), 0, "a closed collection takes nothing");
    let collection = lab.try_open(Arc::new(lab.disk.clone()), &resources).unwrap();
    check(&collection, &oracle);
    assert_eq!(resources.memory.used(), collection.stats().memory_bytes);
}

#[test]
fn slots_of_deleted_points_are_used_again_at_the_limit() {
    let lab = Lab::new();
    let resources = limited(2_000_000);
    let collection = lab.try_open(Arc::new(lab.disk.clone()), &resources).unwrap();
    let mut oracle = BTreeMap::new();
    for first in (1..).step_by(50) {
        let batch: Vec<Record> = (first..first + 50).map(|id| put(id, id)).collect();
        let outcomes = lab.apply(&collection, batch.clone());
        let written = (first..).zip(batch).zip(&outcomes).filter(|(_, outcome)| is_written(outcome));
        oracle.extend(written.map(|((id, record), _)| (id, record)));
        if !outcomes.iter().all(is_written) {
            break;
        }
    }
    let ids: Vec<u64> = oracle.keys().copied().step_by(2).collect();
    assert!(ids.len() > 500, "{} points fit", oracle.len());
    for some in ids.chunks(100) {
        let deletes = some.iter().map(|id| delete(*id, 1_000_000)).collect();
        assert!(lab.apply(&collection, deletes).iter().all(is_written));
        oracle.extend(some.iter().map(|id| (*id, delete(*id, 1_000_000))));
    }
    // What a delete frees is a third of what a point with a new slot takes, so most of them fit again only in the slots of
    // those that are gone. The last few do not, beside a batch that is on its way.
    let (started, few, mut missing) = (std::time::Instant::now(), ids.len() / 5, ids);
    while missing.len() > few {
        assert!(started.elapsed().as_secs() < 60, "{} points do not fit again", missing.len());
        while collection.core.fields.graphs().any(|index| index.consolidate(64)) {}
        for some in std::mem::take(&mut missing).chunks(100) {
            let outcomes = lab.apply(&collection, some.iter().map(|id| put(*id, 2_000_000)).collect());
            for (id, outcome) in some.iter().zip(outcomes) {
                if is_written(&outcome) {
                    oracle.insert(*id, put(*id, 2_000_000));
                } else {
                    missing.push(*id);
                }
            }
            assert!(resources.memory.used() <= 2_000_000, "{} bytes are used", resources.memory.used());
        }
    }
    check(&collection, &oracle);
}

#[test]
fn another_collection_that_goes_makes_room() {
    let lab = Lab::new();
    let resources = limited(200_000);
    let other = resources.share("other");
    other.account.hold(199_900);
    let collection = lab.try_open(Arc::new(lab.disk.clone()), &resources).unwrap();
    assert_unavailable(&lab.apply(&collection, vec![put(1, 1)])[0], &["\"films\"", "of its limit of 195.3 KiB"]);
    drop(other);
    assert!(is_written(&lab.apply(&collection, vec![put(1, 2)])[0]));
}

#[test]
fn puts_near_the_limit_take_longer_and_deletes_do_not() {
    let lab = Lab::new();
    let resources = limited(1_000_000);
    let collection = lab.try_open(Arc::new(lab.disk.clone()), &resources).unwrap();
    let took = |record| {
        let started = std::time::Instant::now();
        assert!(is_written(&lab.apply(&collection, vec![record])[0]));
        started.elapsed()
    };
    let other = resources.share("other");
    other.account.hold(950_000);
    let wanted = resources.memory.delay();
    assert!(!wanted.is_zero() && took(put(1, 1)) >= wanted);
    // A delete that waits for nothing is done long before the longest of many is over.
    assert!((2..20).any(|id| took(delete(id, id)) < wanted));
}

#[test]
fn a_collection_that_does_not_fit_stays_closed_until_there_is_room_and_costs_nothing_meanwhile() {
    for with_snapshot in [true, false] {
        let lab = Lab::new();
        let collection = lab.open();
        lab.apply(&collection, (1..=2_000).map(|id| put(id, id)).collect());
        // Linking makes codes, which count as well.
        while collection.unlinked() > 0 {
            std::thread::yield_now();
        }
        if with_snapshot {
            collection.snapshot().unwrap();
        }
        let needed = collection.stats().memory_bytes;
        collection.close();
        drop(collection);
        let resources = limited(needed);
        let other = resources.share("other");
        other.account.hold(needed / 2);
        for _ in 0..2 {
            let refused = lab.try_open(Arc::new(lab.disk.clone()), &resources).err().unwrap();
            assert!(matches!(&refused, OpenError::Memory(over) if over.limit == needed), "{refused}");
            assert_eq!(resources.memory.used(), needed / 2);
        }
        drop(other);
        let collection = lab.try_open(Arc::new(lab.disk.clone()), &resources).unwrap();
        assert_eq!(collection.stats().points, 2_000);
    }
}

#[test]
fn on_a_full_disk_deletes_go_on_in_the_room_of_the_ballast_and_puts_when_it_is_whole_again() {
    for cannot_reserve in [false, true] {
        let lab = Lab::new();
        let faulty = FaultyDisk::new(Arc::new(lab.disk.clone()));
        if cannot_reserve {
            faulty.set(Fault::CannotReserve);
        }
        let disk: Arc<dyn Disk> = Arc::new(faulty.clone());
        let ballast = Ballast::load(Arc::clone(&disk), BALLAST);
        let resources = Arc::new(Resources { memory: Budget::unlimited(), ballast });
        let collection = lab.try_open(Arc::clone(&disk), &resources).unwrap();
        faulty.set(Fault::Room(100_000));
        let mut oracle = BTreeMap::new();
        for id in 1.. {
            let outcome = lab.apply(&collection, vec![put(id, id)]).remove(0);
            if !is_written(&outcome) {
                assert_unavailable(&outcome, &["\"films\"", "the disk is full", "free some space"]);
                break;
            }
            oracle.insert(id, put(id, id));
        }
        assert!(oracle.len() > 100, "{} points fit", oracle.len());
        let ids: Vec<u64> = oracle.keys().copied().collect();
        // One batch has both; its put is older than a delete of the same point, and overtaken by it.
        let outcomes =
            lab.apply(&collection, vec![put(90_000, 9_000), delete(ids[0], 9_001), put(ids[0], 9_000), put(2, 9_000)]);
        assert_unavailable(&outcomes[0], &["the disk is full"]);
        assert_eq!(outcomes[1..3], [Outcome::Written(version(9_001)), Outcome::Written(version(9_001))]);
        assert_unavailable(&outcomes[3], &["the disk is full"]);
        oracle.insert(ids[0], delete(ids[0], 9_001));
        for id in &ids[1..] {
            assert!(is_written(&lab.apply(&collection, vec![delete(*id, 9_002)])[0]), "delete of {id}");
            oracle.insert(*id, delete(*id, 9_002));
        }
        assert!(!resources.ballast.is_whole());
        assert_eq!(lab.disk.open_read(BALLAST_FILE).unwrap().len().unwrap(), 0);
        check(&collection, &oracle);
        faulty.heal();
        let patience = std::time::Instant::now();
        while !is_written(&lab.apply(&collection, vec![put(90_000, 9_500)])[0]) {
            assert!(patience.elapsed().as_secs() < 30, "there is room, and no puts are taken");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        oracle.insert(90_000, put(90_000, 9_500));
        assert!(resources.ballast.is_whole());
        check(&collection, &oracle);
        collection.close();
        drop(collection);
        lab.disk.crash(7);
        check(&lab.open(), &oracle);
    }
}

#[test]
fn a_disk_that_cannot_be_written_refuses_with_its_reason_and_recovers_by_itself() {
    let cases = [
        (ErrorKind::ReadOnlyFilesystem, "read-only"),
        (ErrorKind::StorageFull, "the disk is full"),
        (ErrorKind::Other, "cannot be written"),
    ];
    for (kind, words) in cases {
        // The batch is written, flushed and declared durable.
        for behind in 1..=3 {
            let lab = Lab::new();
            let faulty = FaultyDisk::new(Arc::new(lab.disk.clone()));
            let resources = Resources::unlimited();
            let collection = lab.try_open(Arc::new(faulty.clone()), &resources).unwrap();
            lab.apply(&collection, vec![put(1, 1)]);
            faulty.set(Fault::Nth(faulty.operations() + behind, kind));
            let outcomes = lab.apply(&collection, vec![put(2, 2), delete(3, 2)]);
            for outcome in &outcomes {
                match outcome {
                    Outcome::Written(_) => {}
                    Outcome::Unavailable(reason) | Outcome::Unknown(reason) => {
                        assert!(reason.contains(words), "{kind:?}: {reason}")
                    }
                    Outcome::Refused(_) => panic!("{outcome:?} is no fault of the record"),
                }
            }
            assert_eq!(collection.read(&[1.into()]), [Some(put(1, 1))]);
            // Surely not written means not there, now and after a restart.
            let surely_not = matches!(outcomes[0], Outcome::Unavailable(_));
            let next = lab.apply(&collection, vec![put(4, 4)]);
            assert!(is_written(&next[0]), "{kind:?}, operation {behind}: {next:?}");
            let there = collection.read(&[2.into()]).remove(0);
            assert!(!(surely_not && there.is_some()), "{kind:?}, operation {behind}");
            assert!(!is_written(&outcomes[0]) || there.is_some());
            std::mem::forget(collection);
            lab.disk.crash(behind);
            assert_eq!(lab.open().read(&[2.into(), 4.into()]), [there, Some(put(4, 4))]);
        }
    }
}
