//! The fast profile: its codes follow what is stored, and never decide a score.

use std::sync::atomic::{AtomicBool, Ordering};

use std::sync::Arc;

use super::*;
use crate::LoadError;
use crate::codes::fast::FastQuery;
use crate::kernel::fastscan::LANES;

const DIM: usize = 40;

fn generation(index: &Index) -> u64 {
    index.parts.codes.fast().unwrap().keep().map_or(0, |generation| generation.number)
}

/// Vectors of many dimensions of which most say little, as embeddings are.
fn flat(count: usize, dim: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut vectors = clustered(count, dim, seed);
    for vector in &mut vectors {
        vector.iter_mut().enumerate().for_each(|(at, value)| *value /= 1.0 + at as f32 / 16.0);
    }
    vectors
}

#[test]
fn codes_are_made_anew_as_the_index_grows_and_searches_go_on() {
    let vectors = clustered(4_200, DIM, 61);
    let index = Index::new(params(DIM, Metric::Euclidean)).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let (index, done, vectors) = (&index, &done, &vectors);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                while !done.load(Ordering::Acquire) {
                    let slot = random.usize(0..vectors.len());
                    let hits = index.search(&vectors[slot], &SearchOptions::new(2, 64)).unwrap();
                    assert!(hits.iter().all(|hit| hit.score.is_finite() && index.is_live(hit.slot)));
                }
            });
        }
        for (slot, vector) in (0..).zip(&vectors) {
            index.store(slot, vector).unwrap();
            index.link(slot);
        }
        done.store(true, Ordering::Release);
    });
    assert_eq!(generation(&index), 2, "at a thousand, and at four thousand");
    check_graph(&index);
    let recall = recall(&index, &clustered(100, DIM, 61), 10, 64);
    assert!(recall >= 0.97, "{recall}");
}

#[test]
fn a_collection_that_begins_in_one_place_and_goes_on_in_another_is_searched_as_well() {
    let mut random = fastrand::Rng::with_seed(62);
    let mut vectors: Vec<Vec<f32>> = (0..1_000).map(|_| (0..DIM).map(|_| 1e-3 * random.f32()).collect()).collect();
    vectors.extend(
        clustered(5_000, DIM, 63).into_iter().map(|vector| vector.into_iter().map(|v| 50.0 * v + 300.0).collect()),
    );
    let index = Index::new(params(DIM, Metric::Euclidean)).unwrap();
    for (slot, vector) in (0..).zip(&vectors) {
        index.store(slot, vector).unwrap();
        index.link(slot);
    }
    check_graph(&index);
    let queries: Vec<Vec<f32>> = vectors
        .iter()
        .step_by(61)
        .map(|vector| vector.iter().map(|v| v * (1.0 + 0.01 * random.f32())).collect())
        .collect();
    let recall = recall(&index, &queries, 10, 64);
    assert!(recall >= 0.95, "{recall}");
}

#[test]
fn scores_are_those_of_the_vectors_themselves() {
    for metric in [Metric::Euclidean, Metric::Cosine, Metric::Dot] {
        let vectors = flat(2_000, 200, 64);
        let index = built(params(200, metric), &vectors);
        assert_eq!(generation(&index), 1);
        for query in &flat(30, 200, 65) {
            let options = SearchOptions::new(10, 100);
            let exact = index.search_exact(query, &SearchOptions::new(2_000, 1)).unwrap();
            for hit in walked(&index, query, &options) {
                assert!(exact.contains(&hit), "{metric:?}: {hit:?}");
            }
        }
        let recall = recall(&index, &flat(60, 200, 64), 10, 64);
        assert!(recall >= 0.95, "{metric:?}: {recall}");
    }
}

#[test]
fn heaps_of_equal_vectors_have_codes_too() {
    let mut vectors = vec![vec![0.25; DIM]; 1_500];
    vectors.extend(clustered(500, DIM, 66));
    let index = built(params(DIM, Metric::Cosine), &vectors);
    check_graph(&index);
    let hits = walked(&index, &[0.25; DIM], &SearchOptions::new(100, 400));
    assert_eq!(hits.len(), 100);
    assert!(hits.iter().all(|hit| hit.slot < 1_500), "{hits:?}");
}

#[test]
fn codes_keep_within_their_memory() {
    for (dim, metric, percent) in [(128, Metric::Euclidean, 150), (384, Metric::Cosine, 70)] {
        let index = built(Params { ef_construction: 20, ..params(dim, metric) }, &flat(1_200, dim, 67));
        let fast = index.parts.codes.fast().unwrap();
        // The model is one for all slots.
        let beside = index.memory_bytes() - fast.keep().unwrap().model().bytes() - 1_200 * dim * 4;
        assert!(100 * beside <= percent * 1_200 * dim * 4, "{} bytes a slot of {dim} values", beside / 1_200);
    }
}

#[test]
fn a_dump_of_another_profile_gets_codes_of_its_own() {
    let vectors = clustered(1_500, DIM, 68);
    let plain = Params { profile: Profile::Plain, ..params(DIM, Metric::Euclidean) };
    let dump = Arenas::of(&built(plain.clone(), &vectors));
    let index = Index::load(params(DIM, Metric::Euclidean), &dump).unwrap();
    assert_eq!((index.unlinked(), generation(&index)), (0, 0));
    index.store(1_500, &[0.5; DIM]).unwrap();
    index.link(1_500);
    assert_eq!(generation(&index), 1, "learned with the next slot");
    check_graph(&index);
    assert_eq!(walked(&index, &[0.5; DIM], &SearchOptions::new(1, 64))[0].slot, 1_500);
    let back = Index::load(plain, &Arenas::of(&index)).unwrap();
    assert_eq!(walked(&back, &[0.5; DIM], &SearchOptions::new(1, 64))[0].slot, 1_500);
}

#[test]
fn a_dump_from_before_there_were_profiles_is_read() {
    let plain = Params { profile: Profile::Plain, ..params(DIM, Metric::Euclidean) };
    let mut dump = Arenas::of(&built(plain, &clustered(1_100, DIM, 70)));
    let header = dump.arenas.get_mut("header").unwrap();
    header[6..8].copy_from_slice(&1u16.to_le_bytes());
    header[28..32].fill(0);
    let index = Index::load(params(DIM, Metric::Euclidean), &dump).unwrap();
    assert_eq!((index.slots(), index.unlinked()), (1_100, 0));
}

#[test]
fn a_model_that_is_cut_foreign_or_missing_is_refused() {
    let params = params(DIM, Metric::Euclidean);
    let dump = Arenas::of(&built(params.clone(), &clustered(1_100, DIM, 69)));
    let refusal = |change: &dyn Fn(&mut Arenas)| {
        let mut changed = dump.clone();
        change(&mut changed);
        Index::load(params.clone(), &changed).err().expect("the dump was accepted")
    };
    let length = dump.arenas["model"].len();
    let missing = refusal(&|dump| drop(dump.arenas.remove("model")));
    assert!(matches!(missing, LoadError::Missing { arena: "model" }), "{missing}");
    for cut in [0, 3, 100, length - 1] {
        let error = refusal(&|dump| dump.arenas.get_mut("model").unwrap().truncate(cut));
        assert!(
            matches!(error, LoadError::Truncated { arena: "model", got, expected } if got == cut as u64 && expected == length as u64),
            "{error}"
        );
    }
    let longer = refusal(&|dump| dump.arenas.get_mut("model").unwrap().push(0));
    assert!(matches!(longer, LoadError::Trailing { arena: "model", .. }), "{longer}");
    for (at, value) in [(0, 0.0f32), (0, 1e9), (1, -1.0), (1, f32::NAN), (2, f32::INFINITY), (500, 17.0)] {
        let set = |dump: &mut Arenas| {
            dump.arenas.get_mut("model").unwrap()[4 * at..4 * at + 4].copy_from_slice(&value.to_le_bytes());
        };
        let error = refusal(&set);
        assert!(matches!(error, LoadError::Invalid { arena: "model", .. }), "value {at} of {value}: {error}");
    }
    for (at, field) in [(28, "profile"), (32, "learned")] {
        let error = refusal(&|dump| dump.arenas.get_mut("header").unwrap()[at..at + 4].fill(0x7f));
        assert!(matches!(error, LoadError::Invalid { arena: "header", field: got, .. } if got == field), "{error}");
    }
}

/// Walks keep the codes that they go by from one to the next; codes that have been replaced are kept by nobody.
#[test]
fn codes_that_were_replaced_take_no_memory() {
    let vectors = clustered(6_500, DIM, 12);
    let index = built(params(DIM, Metric::Euclidean), &vectors[..1_500]);
    let codes = || Arc::downgrade(&index.parts.codes.fast().unwrap().keep().unwrap());
    let before = codes();
    // Two walks at once, and none at once later: one of the two places where they keep what they need is not used again.
    let walk = || walked(&index, &vectors[0], &SearchOptions::new(10, 64));
    walk();
    index.parts.scratches.with(|_| walk());
    store_all(&index, 1_500..6_500, &vectors[1_500..]);
    link_all(&index);
    assert!(!before.ptr_eq(&codes()), "there are new codes");
    assert!(before.upgrade().is_none(), "somebody keeps the old ones");
}

#[test]
fn a_walk_by_codes_that_were_replaced_meanwhile_takes_what_was_stored_since_for_infinitely_far() {
    let vectors = clustered(8_200, DIM, 65);
    let index = built(params(DIM, Metric::Euclidean), &vectors[..1_100]);
    let replaced = index.parts.codes.fast().unwrap().keep().unwrap();
    // At four times as many slots the codes are made anew. The slots from 8,064 on are in a chunk of the arenas that the
    // replaced codes do not have.
    for (slot, vector) in (0..).zip(&vectors).skip(1_100) {
        index.store(slot, vector).unwrap();
        if slot < 4_500 {
            index.link(slot);
        }
    }
    assert_ne!(generation(&index), replaced.number);
    let mut asked = FastQuery::default();
    replaced.ask(index.parts.rows.query(0), &mut asked);
    let mut distances = [0.0; 3];
    replaced.distances(&asked, &[8_199, 0, 8_150], &mut distances);
    assert_eq!([distances[0], distances[2]], [f32::MAX; 2]);
    assert!(distances[1] < 1.0, "the query is the vector of slot 0: {distances:?}");
    assert_eq!(replaced.estimate(&asked, 8_199, 0, 0.0, f32::MAX, &mut [0.0; LANES]), 0, "nothing is known there");
}
