//! Dump and load.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

const DIM: usize = 10;

#[test]
fn a_loaded_index_answers_alike_without_linking() {
    for metric in Metric::ALL {
        let vectors = clustered(2_500, DIM, 41);
        let index = built(params(DIM, metric), &vectors);
        for slot in (0..2_500).step_by(5) {
            index.mark_deleted(slot);
        }
        let dump = Arenas::of(&index);
        let loaded = Index::load(params(DIM, metric), &dump).unwrap();
        assert_eq!((loaded.unlinked(), loaded.next_unlinked()), (0, None), "nothing is to be linked");
        assert_eq!((loaded.slots(), loaded.len_live()), (2_500, 2_000));
        assert_eq!(loaded.parts.graph.entry(), index.parts.graph.entry());
        check_graph(&loaded);
        warm_all(&loaded);
        for query in &clustered(50, DIM, 42) {
            let options = SearchOptions::new(10, 40);
            assert_eq!(walked(&loaded, query, &options), walked(&index, query, &options));
        }
        for (slot, vector) in (0..).zip(&vectors) {
            assert_eq!(loaded.vector(slot).as_ref(), Some(vector));
        }
        assert!(Arenas::of(&loaded) == dump, "what is loaded dumps to the same bytes");
    }
}

#[test]
fn a_loaded_index_grows_on() {
    let vectors = clustered(2_000, DIM, 43);
    let index =
        Index::load(params(DIM, Metric::Cosine), &Arenas::of(&built(params(DIM, Metric::Cosine), &vectors[..1_000])));
    let index = index.unwrap();
    assert!(matches!(index.store(999, &vectors[0]), Err(crate::IndexError::SlotTaken { slot: 999, next: 1_000 })));
    store_all(&index, 1_000..2_000, &vectors[1_000..]);
    link_all(&index);
    check_graph(&index);
    for (slot, vector) in (0..).zip(&vectors) {
        assert_eq!(walked(&index, vector, &SearchOptions::new(1, 64))[0].slot, slot);
    }
}

#[test]
fn what_was_not_linked_is_handed_out_after_loading() {
    let vectors = clustered(1_500, DIM, 44);
    let index = built(params(DIM, Metric::Euclidean), &vectors[..1_200]);
    store_all(&index, 1_200..1_400, &vectors[1_200..]);
    index.store(1_450, &vectors[1_450]).unwrap();
    let loaded = Index::load(params(DIM, Metric::Euclidean), &Arenas::of(&index)).unwrap();
    assert_eq!((loaded.unlinked(), loaded.slots()), (201, 1_451));
    assert_eq!(walked(&loaded, &vectors[1_450], &SearchOptions::new(1, 64))[0].slot, 1_450);
    assert_eq!(loaded.vector(1_420), None);
    let handed: Vec<Slot> = std::iter::from_fn(|| loaded.next_unlinked()).collect();
    assert_eq!(handed, (1_200..1_400).chain([1_450]).collect::<Vec<_>>());
    handed.into_iter().for_each(|slot| loaded.link(slot));
    check_graph(&loaded);
}

#[test]
fn a_loaded_index_is_searched_before_it_is_warm() {
    for profile in Profile::ALL {
        let params = Params { profile, ..params(DIM, Metric::Cosine) };
        let vectors = clustered(2_500, DIM, 48);
        let dump = Arenas::of(&built(params.clone(), &vectors));
        let cold = Index::load(params, &dump).unwrap();
        assert_eq!(cold.warming().is_some(), profile != Profile::Plain, "{profile:?}");
        let plain = Params { profile: Profile::Plain, ..cold.params().clone() };
        let plain = Index::load(plain, &dump).unwrap();
        for query in &clustered(20, DIM, 49) {
            let options = SearchOptions::new(10, 40);
            assert_eq!(walked(&cold, query, &options), walked(&plain, query, &options), "{profile:?}");
        }
        assert!(Arenas::of(&cold) == dump, "{profile:?}: a dump of what is cold has the model");
        warm_all(&cold);
        assert!(!cold.warm(100));
    }
}

/// While two threads make the codes, slots are stored, linked and deleted; then every code is what it would be, had it
/// been made in peace.
#[test]
fn codes_that_are_made_beside_writers_are_those_of_the_links() {
    for metric in [Metric::Euclidean, Metric::Dot] {
        let vectors = clustered(3_500, DIM, 50);
        let index =
            Index::load(params(DIM, metric), &Arenas::of(&built(params(DIM, metric), &vectors[..2_500]))).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| while index.warm(7) {});
            }
            scope.spawn(|| {
                for (slot, vector) in (2_500..).zip(&vectors[2_500..]) {
                    index.store(slot, vector).unwrap();
                    index.link(slot);
                    index.mark_deleted(slot - 2_000);
                }
            });
        });
        assert_eq!(index.warming(), None);
        check_graph(&index);
        check_codes(&index);
        let recall = recall(&index, &vectors[2_500..2_600], 10, 100);
        assert!(recall >= 0.9, "{metric:?}: {recall}");
    }
}

#[test]
fn an_empty_index_survives() {
    let loaded = Index::load(params(DIM, Metric::Dot), &Arenas::of(&built(params(DIM, Metric::Dot), &[]))).unwrap();
    assert_eq!((loaded.slots(), loaded.search(&[1.0; DIM], &SearchOptions::new(3, 3)).unwrap()), (0, vec![]));
    loaded.store(0, &[1.0; DIM]).unwrap();
    link_all(&loaded);
    assert_eq!(slots(&walked(&loaded, &[1.0; DIM], &SearchOptions::new(3, 3))), [0]);
}

/// Dumps again and again while two threads link and one stores and deletes; every dump loads to an index that, once
/// its unlinked slots are linked, has lost nothing.
#[test]
fn a_dump_beside_writers_loses_nothing() {
    let vectors = clustered(4_000, DIM, 45);
    let index = Index::new(params(DIM, Metric::Euclidean)).unwrap();
    let done = AtomicBool::new(false);
    let dumps: Vec<(usize, Arenas)> = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) || index.unlinked() > 0 {
                    match index.next_unlinked() {
                        Some(slot) => index.link(slot),
                        None => std::thread::yield_now(),
                    }
                }
            });
        }
        scope.spawn(|| {
            for (slot, vector) in (0..).zip(&vectors) {
                index.store(slot, vector).unwrap();
                if slot % 10 == 9 {
                    index.mark_deleted(slot - 5);
                }
                while index.unlinked() > 50 {
                    std::thread::yield_now();
                }
            }
            done.store(true, Ordering::Release);
        });
        let mut dumps = Vec::new();
        while !done.load(Ordering::Acquire) {
            let stored = index.slots();
            dumps.push((stored, Arenas::of(&index)));
        }
        dumps
    });
    assert!(dumps.iter().any(|(stored, _)| (1..4_000).contains(stored)), "no dump was made while slots were stored");
    let every = dumps.len().div_ceil(8);
    for (stored, dump) in dumps.into_iter().step_by(every) {
        let loaded = Index::load(params(DIM, Metric::Euclidean), &dump).unwrap();
        assert!(loaded.slots() >= stored);
        let unlinked = loaded.unlinked();
        link_all(&loaded);
        assert_eq!(loaded.unlinked(), 0);
        check_graph(&loaded);
        for slot in (0..loaded.slots() as Slot).filter(|slot| loaded.is_live(*slot)) {
            let vector = loaded.vector(slot).unwrap();
            assert_eq!(vector, vectors[slot as usize]);
            let hits = walked(&loaded, &vector, &SearchOptions::new(1, 64));
            assert_eq!(hits[0].slot, slot, "of {stored}, of which {unlinked} were linked anew");
        }
    }
}

#[test]
fn a_sink_that_fails_ends_the_dump() {
    struct Full(usize);
    impl ArenaSink for Full {
        fn begin(&mut self, _: &str) -> io::Result<()> {
            Ok(())
        }
        fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(())
        }
    }
    let index = built(params(DIM, Metric::Euclidean), &clustered(500, DIM, 46));
    assert_eq!(index.dump(&mut Full(20_000)).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert!(index.dump(&mut Full(1 << 20)).is_ok());
}

#[test]
fn unchanged_slots_dump_to_unchanged_bytes() {
    let vectors = uniform(1_200, DIM, 47);
    let index = built(params(DIM, Metric::Euclidean), &vectors[..1_000]);
    let before = Arenas::of(&index);
    store_all(&index, 1_000..1_200, &vectors[1_000..]);
    let after = Arenas::of(&index);
    for arena in ["nodes", "vectors", "links0"] {
        assert!(after.arenas[arena].starts_with(&before.arenas[arena]), "{arena}");
        assert_eq!(after.arenas[arena].len() / 1_200, before.arenas[arena].len() / 1_000, "{arena} has a fixed stride");
    }
}
