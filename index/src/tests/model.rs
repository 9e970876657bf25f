//! The index against a list that is searched by sorting it, and what it refuses.

use proptest::prelude::*;

use super::*;
use crate::{IndexError, Kernel, VectorError};

#[derive(Clone, Debug)]
enum Step {
    Store { skip: u32, vector: Vec<f32> },
    Delete(prop::sample::Index),
    Link,
    Search { query: Vec<f32>, k: usize, modulus: u32 },
    Reload,
}

fn step(dim: usize) -> impl Strategy<Value = Step> {
    // Whole numbers, so that sums are exact and ties are frequent.
    let vector = move || prop::collection::vec((-3i8..4).prop_map(f32::from), dim);
    prop_oneof![
        8 => (0u32..3, vector()).prop_map(|(skip, vector)| Step::Store { skip, vector }),
        2 => any::<prop::sample::Index>().prop_map(Step::Delete),
        4 => Just(Step::Link),
        3 => (vector(), 1usize..8, 1u32..4).prop_map(|(query, k, modulus)| Step::Search { query, k, modulus }),
        1 => Just(Step::Reload),
    ]
}

fn score(metric: Metric, a: &[f32], b: &[f32]) -> f32 {
    let sum = |term: fn(f32, f32) -> f32| -> f32 { a.iter().zip(b).map(|(a, b)| term(*a, *b)).sum() };
    match metric {
        Metric::Euclidean => sum(|a, b| (a - b) * (a - b)).sqrt(),
        Metric::Manhattan => sum(|a, b| (a - b).abs()),
        Metric::Dot | Metric::Cosine => sum(|a, b| a * b) + 0.0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn behaves_like_a_sorted_list(
        metric in prop::sample::select(vec![Metric::Euclidean, Metric::Manhattan, Metric::Dot]),
        seed in any::<u64>(),
        steps in prop::collection::vec(step(3), 1..160),
    ) {
        let params = Params { m: 3, ef_construction: 16, seed, ..params(3, metric) };
        let mut index = Index::new(params.clone()).unwrap();
        let mut model: BTreeMap<Slot, Vec<f32>> = BTreeMap::new();
        let mut next = 0;
        for step in steps {
            match step {
                Step::Store { skip, vector } => {
                    index.store(next + skip, &vector).unwrap();
                    model.insert(next + skip, vector);
                    next += skip + 1;
                }
                Step::Delete(which) if next > 0 => {
                    let slot = which.index(next as usize) as Slot;
                    index.mark_deleted(slot);
                    model.remove(&slot);
                }
                Step::Delete(_) => {}
                Step::Link => if let Some(slot) = index.next_unlinked() { index.link(slot) },
                Step::Reload => index = Index::load(params.clone(), &Arenas::of(&index)).unwrap(),
                Step::Search { query, k, modulus } => {
                    let filter = move |slot: Slot| slot.is_multiple_of(modulus);
                    let sign = if metric.higher_is_better() { -1.0 } else { 1.0 };
                    let mut expected: Vec<Hit> = model.iter()
                        .filter(|(slot, _)| filter(**slot))
                        .map(|(slot, vector)| Hit { slot: *slot, score: score(metric, &query, vector) })
                        .collect();
                    expected.sort_by(|a, b| (sign * a.score).total_cmp(&(sign * b.score)).then(a.slot.cmp(&b.slot)));
                    expected.truncate(k);
                    let members: SlotBits = (0..2 * next).filter(|slot| filter(*slot)).collect();
                    // The walk keeps more than there is, so that it too must find everything.
                    let options = SearchOptions { filter: Some(&members), ..SearchOptions::new(k, 500) };
                    prop_assert_eq!(&index.search(&query, &options).unwrap(), &expected);
                    prop_assert_eq!(&index.search_exact(&query, &options).unwrap(), &expected);
                    prop_assert_eq!(&walked(&index, &query, &options), &expected);
                }
            }
            prop_assert_eq!(index.len_live(), model.len());
            prop_assert_eq!(index.slots(), next as usize);
        }
        for slot in 0..next {
            prop_assert_eq!(index.is_live(slot), model.contains_key(&slot));
        }
        for (slot, vector) in model {
            prop_assert_eq!(index.vector(slot), Some(vector));
        }
    }
}

#[test]
fn scores_are_the_ones_of_the_metric() {
    let cases = [
        (Metric::Euclidean, [3.0, 4.0], [0.0, 0.0], 5.0),
        (Metric::Manhattan, [3.0, -4.0], [0.0, 0.0], 7.0),
        (Metric::Dot, [3.0, -4.0], [2.0, 0.5], 4.0),
        (Metric::Cosine, [3.0, 4.0], [50.0, 0.0], 0.6),
        (Metric::Cosine, [3.0, 4.0], [-0.3, -0.4], -1.0),
    ];
    for (metric, stored, query, expected) in cases {
        let index = built(Params::new(2, metric), &[stored.to_vec()]);
        for hits in [
            index.search(&query, &SearchOptions::new(1, 1)).unwrap(),
            walked(&index, &query, &SearchOptions::new(1, 1)),
        ] {
            assert!((hits[0].score - expected).abs() < 1e-6, "{metric:?}: {hits:?} instead of {expected}");
        }
    }
}

#[test]
fn vectors_come_back_bit_by_bit() {
    let vector = vec![-0.0, f32::MIN_POSITIVE / 8.0, 1.0 + f32::EPSILON, -1e17];
    let index = built(Params::new(4, Metric::Cosine), std::slice::from_ref(&vector));
    let bits = |vector: &[f32]| vector.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&index.vector(0).unwrap()), bits(&vector));
    assert_eq!(index.vector(1), None);
}

#[test]
fn parameters_outside_their_limits_are_refused_by_name() {
    let refusal = |params: Params| Index::new(params).err().unwrap().to_string();
    let good = Params::new(8, Metric::Dot);
    assert_eq!(refusal(Params { dim: 0, ..good.clone() }), "dim is 0; it must be 1 to 16384");
    assert_eq!(refusal(Params { dim: 16_385, ..good.clone() }), "dim is 16385; it must be 1 to 16384");
    assert_eq!(refusal(Params { m: 1, ..good.clone() }), "m is 1; it must be 2 to 128");
    assert_eq!(refusal(Params { ef_construction: 0, ..good.clone() }), "ef_construction is 0; it must be 1 to 10000");
    for kernel in Kernel::ALL.into_iter().filter(|kernel| !kernel.is_available()) {
        assert!(refusal(Params { kernel: Some(kernel), ..good.clone() }).contains("does not run on this processor"));
    }
}

#[test]
fn vectors_outside_their_limits_are_refused_and_leave_nothing() {
    let index = Index::new(Params::new(3, Metric::Cosine)).unwrap();
    let cases = [
        (vec![1.0, 2.0], VectorError::Dimension { got: 2, expected: 3 }),
        (vec![0.0; 3], VectorError::NormTooSmall { norm: 0.0, min: 1e-15 }),
        (vec![1.0, f32::INFINITY, 2.0], VectorError::NotFinite { position: 1, value: f32::INFINITY }),
        (vec![0.0, 0.0, 2e18], VectorError::NormTooLarge { norm: f64::from(2e18f32), max: 1e18 }),
    ];
    for (vector, expected) in cases {
        assert_eq!(index.validate(&vector), Err(expected.clone()));
        assert!(matches!(index.store(0, &vector), Err(IndexError::Vector(got)) if got == expected));
        let searched = index.search(&vector, &SearchOptions::new(1, 1));
        assert!(matches!(searched, Err(IndexError::Vector(got)) if got == expected));
    }
    assert_eq!(
        index.validate(&[1.0, 2.0, f32::NAN]).unwrap_err().to_string(),
        "vector[2] is NaN; every value must be finite"
    );
    assert_eq!((index.slots(), index.next_unlinked()), (0, None));
    let dot = Index::new(Params::new(3, Metric::Dot)).unwrap();
    assert_eq!(dot.validate(&[0.0; 3]), Ok(()), "only cosine needs a direction");
}

#[test]
fn the_largest_vectors_still_have_finite_distances() {
    for metric in Metric::ALL {
        let index = built(Params::new(2, metric), &[vec![1e18, 0.0], vec![-1e18, 0.0]]);
        let hits = index.search(&[1e18, 0.0], &SearchOptions::new(2, 2)).unwrap();
        assert!(hits[0].slot == 0 && hits.iter().all(|hit| hit.score.is_finite()), "{metric:?}: {hits:?}");
    }
}

#[test]
fn searches_outside_their_limits_are_refused() {
    let index = built(Params::new(2, Metric::Euclidean), &[vec![1.0, 2.0]]);
    let refusal = |options: SearchOptions<'_>| index.search(&[0.0, 0.0], &options).unwrap_err().to_string();
    assert_eq!(refusal(SearchOptions::new(0, 10)), "k is 0; it must be 1 to 10000");
    assert_eq!(refusal(SearchOptions::new(10_001, 10)), "k is 10001; it must be 1 to 10000");
    assert_eq!(refusal(SearchOptions::new(1, 0)), "ef is 0; it must be 1 to 100000");
    assert_eq!(refusal(SearchOptions::new(1, 100_001)), "ef is 100001; it must be 1 to 100000");
    let threshold = SearchOptions { threshold: Some(f32::NAN), ..SearchOptions::new(1, 1) };
    assert!(refusal(threshold).starts_with("threshold is NaN"));
}

#[test]
fn slots_must_ascend_and_unknown_ones_are_left_alone() {
    let index = built(Params::new(1, Metric::Euclidean), &[vec![1.0], vec![2.0]]);
    let refused = index.store(1, &[3.0]);
    assert!(matches!(refused, Err(IndexError::SlotTaken { slot: 1, next: 2 })));
    let refused = index.store(u32::MAX, &[3.0]);
    assert!(matches!(refused, Err(IndexError::SlotTaken { slot: u32::MAX, next: 2 })));
    for slot in [2, 100_000_000, u32::MAX] {
        index.mark_deleted(slot);
        index.link(slot);
        assert!(!index.is_live(slot) && index.vector(slot).is_none());
    }
    assert_eq!((index.slots(), index.len_live(), index.unlinked()), (2, 2, 0));
}

#[test]
fn memory_follows_the_slots() {
    let index = Index::new(Params::new(100, Metric::Cosine)).unwrap();
    assert_eq!(index.memory_bytes(), 0);
    store_all(&index, 0..1_000, &uniform(1_000, 100, 1));
    // 448 bytes of row, 128 of links, 16 of node, 1 of state; two sets of 32 words and a count; a line for each upper layer.
    let blocks: usize = (0..1_000).map(|slot| index.parts.graph.level(slot)).sum();
    assert_eq!(index.memory_bytes(), 1_000 * (448 + 128 + 16 + 1) + 2 * (32 + 1) * 4 + 64 * blocks);
}
