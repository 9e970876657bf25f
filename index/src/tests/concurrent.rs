//! Many threads at once.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::*;

const DIM: usize = 16;

/// Links until nothing is left and `done` is set.
fn link_until(index: &Index, done: &AtomicBool) {
    loop {
        let was_done = done.load(Ordering::Acquire);
        match index.next_unlinked() {
            Some(slot) => index.link(slot),
            None if was_done => return,
            None => std::thread::yield_now(),
        }
    }
}

#[test]
fn nothing_is_lost_while_all_at_once_store_link_delete_and_search() {
    let vectors = clustered(6_000, DIM, 31);
    let index = Index::new(params(DIM, Metric::Euclidean)).unwrap();
    let (stored, deleted, done) = (AtomicU32::new(0), AtomicU32::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| link_until(&index, &done));
        }
        scope.spawn(|| {
            for (slot, vector) in (0..).zip(&vectors) {
                index.store(slot, vector).unwrap();
                stored.store(slot + 1, Ordering::Release);
                // Every seventh leaves again, some before they are linked and some after.
                if slot >= 200 && slot % 7 == 0 {
                    index.mark_deleted(slot - 7 * (slot % 11));
                    deleted.fetch_add(1, Ordering::Release);
                }
            }
            done.store(true, Ordering::Release);
        });
        for worker in 0..2 {
            let (index, stored, done, vectors) = (&index, &stored, &done, &vectors);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(worker);
                while !done.load(Ordering::Acquire) {
                    let count = stored.load(Ordering::Acquire);
                    if count == 0 {
                        continue;
                    }
                    // What is stored is found at once, linked or not, unless it is deleted meanwhile.
                    let slot = random.u32(0..count);
                    let was_live = index.is_live(slot);
                    let hits = index.search(&vectors[slot as usize], &SearchOptions::new(3, 64)).unwrap();
                    let is_found = hits.first().is_some_and(|hit| hit.slot == slot);
                    assert!(is_found || !was_live || !index.is_live(slot), "slot {slot} of {count}: {hits:?}");
                    assert!(was_live || hits.iter().all(|hit| hit.slot != slot), "deleted slot {slot} came back");
                }
            });
        }
    });
    assert!(deleted.load(Ordering::Acquire) > 500);
    assert_eq!((index.unlinked(), index.slots()), (0, 6_000));
    check_graph(&index);
    check_codes(&index);
    for (slot, vector) in (0..).zip(&vectors).filter(|(slot, _)| index.is_live(*slot)) {
        assert_eq!(walked(&index, vector, &SearchOptions::new(1, 64))[0].slot, slot);
    }
    let recall = recall(&index, &clustered(100, DIM, 31), 10, 64);
    assert!(recall >= 0.97, "{recall}");
}

#[test]
fn each_unlinked_slot_is_handed_to_one_linker() {
    let index = Index::new(params(2, Metric::Euclidean)).unwrap();
    store_all(&index, 0..5_000, &uniform(5_000, 2, 1));
    let mut handed: Vec<Slot> = std::thread::scope(|scope| {
        let take = || std::iter::from_fn(|| index.next_unlinked()).collect::<Vec<_>>();
        let takers: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
        takers.into_iter().flat_map(|taker| taker.join().unwrap()).collect()
    });
    handed.sort();
    assert_eq!(handed, (0..5_000).collect::<Vec<_>>());
}

#[test]
fn threads_that_begin_an_index_together_agree_on_its_first_node() {
    for seed in 0..200 {
        let vectors = uniform(8, 4, seed);
        let index = Index::new(Params { seed, m: 2, ..params(4, Metric::Euclidean) }).unwrap();
        store_all(&index, 0..8, &vectors);
        let barrier = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    barrier.wait();
                    link_all(&index);
                });
            }
        });
        let linked = (0..8).filter(|slot| index.parts.states.is_linked(*slot)).count();
        assert_eq!((linked, index.unlinked()), (8, 0));
        let first = (0..8).min_by_key(|slot| index.parts.graph.order(*slot)).unwrap();
        assert_eq!(reached(&index, first).len(), 8, "seed {seed}");
    }
}
