//! Walks on scalar codes.

use super::*;
use crate::codes::chosen::Codes;
use crate::{Kernel, Profile};

const DIM: usize = 48;
const COUNT: usize = 6_000;

fn compact(dim: usize, metric: Metric) -> Params {
    Params { profile: Profile::Compact, ..params(dim, metric) }
}

/// Vectors, and queries of the same kind.
fn base_and_queries(count: usize, dim: usize, seed: u64) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let mut base = clustered(count + 100, dim, seed);
    let queries = base.split_off(count);
    (base, queries)
}

#[test]
fn walks_on_codes_find_as_much_and_score_exactly() {
    for metric in Metric::ALL {
        for dim in [16, DIM, 100] {
            let (base, queries) = base_and_queries(COUNT, dim, 61);
            let index = built(compact(dim, metric), &base);
            assert_eq!(matches!(index.parts.codes, Codes::Scalar(_)), metric != Metric::Manhattan);
            check_graph(&index);
            let plain = built(Params { profile: Profile::Plain, ..params(dim, metric) }, &base);
            let (got, expected) = (recall(&index, &queries, 10, 100), recall(&plain, &queries, 10, 100));
            assert!(got >= expected - 0.01 && got > 0.9, "{metric:?} {dim}: {got}, on the full vectors {expected}");
            for query in &queries {
                let options = SearchOptions::new(5, 100);
                let scores: BTreeMap<Slot, f32> = index
                    .search_exact(query, &SearchOptions::new(2_000, 100))
                    .unwrap()
                    .iter()
                    .map(|hit| (hit.slot, hit.score))
                    .collect();
                for hit in walked(&index, query, &options) {
                    assert_eq!(scores.get(&hit.slot), Some(&hit.score), "{metric:?} {dim}: slot {}", hit.slot);
                }
            }
        }
    }
}

#[test]
fn every_kernel_walks_on_codes() {
    let (base, queries) = base_and_queries(2_000, 130, 62);
    for kernel in Kernel::available() {
        let index = built(Params { kernel: Some(kernel), ..compact(130, Metric::Cosine) }, &base);
        let recall = recall(&index, &queries, 10, 64);
        assert!(recall >= 0.9, "{kernel:?}: {recall}");
    }
}

#[test]
fn an_index_that_began_with_ten_points_is_as_good_when_it_has_grown_into_others() {
    let index = Index::new(compact(DIM, Metric::Euclidean)).unwrap();
    // Ten points, then a thousand close to them, then many far from them and far apart; the first ones leave.
    let small: Vec<Vec<f32>> =
        clustered(1_100, DIM, 63).into_iter().map(|v| v.iter().map(|x| x * 1e-3).collect()).collect();
    let (base, queries) = base_and_queries(COUNT, DIM, 64);
    let mut slot = 0;
    for vectors in [&small[..10], &small[10..], &base[..]] {
        for vector in vectors {
            index.store(slot, vector).unwrap();
            index.link(slot);
            slot += 1;
            if slot > 1_100 && slot <= 2_200 {
                index.mark_deleted(slot - 1_101);
            }
        }
    }
    check_graph(&index);
    let got = recall(&index, &queries, 10, 100);
    let fresh = recall(&built(compact(DIM, Metric::Euclidean), &base), &queries, 10, 100);
    assert!(got >= fresh - 0.01, "{got}, built afresh {fresh}");
}

#[test]
fn where_codes_cannot_tell_neighbours_apart_walks_go_by_the_vectors() {
    // Clusters a hundred thousand times as far from each other as they are wide: all of one have the same code.
    let mut random = fastrand::Rng::with_seed(69);
    let centres = uniform(30, DIM, 69);
    let mut vector = || -> Vec<f32> {
        let centre = random.choice(&centres).unwrap().clone();
        centre.into_iter().map(|value| value * 100.0 + random.f32() * 1e-3).collect()
    };
    let base: Vec<Vec<f32>> = (0..6_000).map(|_| vector()).collect();
    let queries: Vec<Vec<f32>> = (0..50).map(|_| vector()).collect();
    let got = recall(&built(compact(DIM, Metric::Euclidean), &base), &queries, 10, 100);
    let plain = Params { profile: Profile::Plain, ..params(DIM, Metric::Euclidean) };
    let expected = recall(&built(plain, &base), &queries, 10, 100);
    assert!(got >= expected - 0.02, "{got}, on the full vectors {expected}");
}

#[test]
fn codes_and_links_take_little_beside_the_vectors() {
    for (dim, share) in [(128, 0.45), (384, 0.25)] {
        let index = Index::new(Params { ef_construction: 10, ..compact(dim, Metric::Cosine) }).unwrap();
        store_all(&index, 0..4_000, &clustered(4_000, dim, 70));
        index.link(0);
        let raw = 4_000 * dim * size_of::<f32>();
        // The matrix that turns the vectors does not grow with them: it counts for little among more of them.
        let matrix = dim * dim * 2;
        let beside = (index.memory_bytes() - raw - matrix) as f64 / raw as f64;
        assert!((0.1..share).contains(&beside), "{dim}: {beside}");
    }
}

#[test]
fn a_loaded_index_walks_on_codes_as_well() {
    let (base, queries) = base_and_queries(COUNT, DIM, 65);
    for metric in [Metric::Euclidean, Metric::Dot] {
        let index = built(compact(DIM, metric), &base);
        let loaded = Index::load(compact(DIM, metric), &Arenas::of(&index)).unwrap();
        warm_all(&loaded);
        assert!(loaded.memory_bytes() > Index::load(params(DIM, metric), &Arenas::of(&index)).unwrap().memory_bytes());
        let (got, expected) = (recall(&loaded, &queries, 10, 64), recall(&index, &queries, 10, 64));
        assert!((got - expected).abs() <= 0.01, "{metric:?}: {got}, before {expected}");
    }
}

#[test]
fn deleted_and_refused_slots_are_walked_through() {
    let (base, queries) = base_and_queries(COUNT, DIM, 66);
    let index = built(compact(DIM, Metric::Cosine), &base);
    for slot in (0..COUNT as Slot).filter(|slot| slot.is_multiple_of(3)) {
        index.mark_deleted(slot);
    }
    let filter: SlotBits = (0..COUNT as Slot).filter(|slot| slot.is_multiple_of(2)).collect();
    let mut found = 0;
    for query in &queries {
        let options = SearchOptions { filter: Some(&filter), ..SearchOptions::new(10, 100) };
        let exact = slots(&index.search_exact(query, &options).unwrap());
        let hits = slots(&walked(&index, query, &options));
        assert_eq!(hits.len(), 10);
        assert!(hits.iter().all(|slot| slot.is_multiple_of(2) && !slot.is_multiple_of(3)));
        found += hits.iter().filter(|slot| exact.contains(slot)).count();
    }
    assert!(found as f64 / (10 * queries.len()) as f64 > 0.95, "{found} found");
}

#[test]
fn equal_seeds_and_one_linker_give_equal_graphs() {
    let (base, _) = base_and_queries(3_000, DIM, 67);
    let one = Arenas::of(&built(compact(DIM, Metric::Euclidean), &base));
    let two = Arenas::of(&built(compact(DIM, Metric::Euclidean), &base));
    assert!(one == two, "the same slots, linked in the same order");
}

#[test]
fn nothing_is_lost_while_codes_are_made_anew_beside_linkers_and_searches() {
    let vectors = clustered(9_000, DIM, 68);
    let index = Index::new(compact(DIM, Metric::Euclidean)).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Acquire) || index.unlinked() > 0 {
                    match index.next_unlinked() {
                        Some(slot) => index.link(slot),
                        None => std::thread::yield_now(),
                    }
                }
            });
        }
        for (slot, vector) in (0..).zip(&vectors) {
            index.store(slot, vector).unwrap();
            if slot % 16 == 0 {
                let hits = index.search(vector, &SearchOptions::new(1, 64)).unwrap();
                assert_eq!(hits[0].slot, slot, "just stored");
            }
            while index.unlinked() > 200 {
                std::thread::yield_now();
            }
        }
        done.store(true, std::sync::atomic::Ordering::Release);
    });
    check_graph(&index);
    for (slot, vector) in (0..).zip(&vectors) {
        assert_eq!(walked(&index, vector, &SearchOptions::new(1, 64))[0].slot, slot);
    }
}
