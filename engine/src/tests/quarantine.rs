//! What damage leaves usable: the older snapshot with the log where that is enough, and else a clear word that only
//! other replicas have what is missing.

use std::collections::BTreeSet;

use vecino_storage::Disk;

use super::*;

const PAGES: &str = "films/snapshots/pages";
const SEGMENT: u64 = 2_000;

/// A collection with two snapshots, a log that is cut behind the older, and writes after the newer.
fn lived() -> (Lab, BTreeMap<u64, Record>, BTreeSet<String>) {
    let lab = Lab::new();
    let collection = start(&lab);
    let mut oracle = BTreeMap::new();
    let mut write = |times: std::ops::Range<u64>| {
        for time in times {
            lab.apply(&collection, vec![put(time % 40, time)]);
            oracle.insert(time % 40, put(time % 40, time));
        }
    };
    write(1..100);
    collection.snapshot().unwrap();
    let of_older: BTreeSet<String> = lab.disk.list(PAGES).unwrap().into_iter().collect();
    write(100..200);
    collection.snapshot().unwrap();
    write(200..220);
    let all: BTreeSet<String> = lab.disk.list(PAGES).unwrap().into_iter().collect();
    collection.close();
    (lab, oracle, all.difference(&of_older).cloned().collect())
}

fn open(lab: &Lab) -> Result<Opened, OpenError> {
    let disk = Arc::new(lab.disk.clone());
    opening::recover(
        disk,
        "films",
        CollectionId([1; 16]),
        &schema(),
        SEGMENT,
        Resources::unlimited().share("films"),
        &Progress::default(),
    )
}

fn start(lab: &Lab) -> Collection {
    let (indexers, runtime) = (Arc::clone(&lab.indexers), lab.runtime.handle().clone());
    Collection::start(open(lab).unwrap(), CollectionId([1; 16]), schema(), indexers, runtime).unwrap()
}

fn damage(lab: &Lab, pages: impl IntoIterator<Item = String>) {
    for page in pages {
        assert!(lab.disk.flip(&format!("{PAGES}/{page}"), 0, 1));
    }
}

#[test]
fn a_damaged_snapshot_is_made_up_for_by_the_older_one_and_the_log() {
    for nth in 0.. {
        // Indexers work beside the writer, so no life has quite the pages of another.
        let (lab, oracle, of_newer) = lived();
        let Some(page) = of_newer.into_iter().nth(nth) else {
            assert!(nth > 0);
            break;
        };
        let newest = open(&lab).unwrap().snapshot_lsn;
        damage(&lab, [page]);
        let collection = start(&lab);
        check(&collection, &oracle);
        assert!(collection.replay_records() > 20, "replayed from the older snapshot, before {newest}");
        // The next snapshot is whole again.
        collection.snapshot().unwrap();
        collection.close();
        check(&start(&lab), &oracle);
    }
}

#[test]
fn what_only_other_replicas_have_is_said_to_need_a_copy() {
    let (lab, _, _) = lived();
    let pages = lab.disk.list(PAGES).unwrap();
    damage(&lab, pages);
    let error = open(&lab).err().unwrap();
    assert!(matches!(error, OpenError::Incomplete { first_lsn: 2.., .. }) && error.needs_copy(), "{error}");
    assert!(error.to_string().contains("does not hash to its name"), "{error}");

    let (lab, _, _) = lived();
    let first = lab.disk.list("films/log").unwrap().remove(0);
    assert!(lab.disk.flip(&format!("films/log/{first}"), 60, 1));
    let damaged = open(&lab).err();
    assert!(damaged.is_none_or(|error| error.needs_copy()));

    let lab = Lab::new();
    let disk = FaultyDisk::new(Arc::new(lab.disk.clone()));
    disk.set(Fault::EverySync);
    let opened = opening::recover(
        Arc::new(disk),
        "films",
        CollectionId([1; 16]),
        &schema(),
        SEGMENT,
        Resources::unlimited().share("films"),
        &Progress::default(),
    );
    assert!(!opened.err().unwrap().needs_copy(), "a disk that does not answer may pass");
}
