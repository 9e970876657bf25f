//! How many of the exact answers a walk finds.

use super::*;

const DIM: usize = 24;
const COUNT: usize = 4_000;

fn recall_of(profile: Profile, metric: Metric, vectors: fn(usize, usize, u64) -> Vec<Vec<f32>>) -> f64 {
    let (base, queries) = {
        let mut all = vectors(COUNT + 100, DIM, 11);
        let queries = all.split_off(COUNT);
        (all, queries)
    };
    let index = built(Params { profile, ..params(DIM, metric) }, &base);
    check_graph(&index);
    recall(&index, &queries, 10, 64)
}

#[test]
fn on_clustered_vectors() {
    for (profile, metric) in Profile::ALL.into_iter().flat_map(|profile| Metric::ALL.map(|metric| (profile, metric))) {
        let recall = recall_of(profile, metric, clustered);
        assert!(recall >= 0.97, "{profile:?} {metric:?}: {recall}");
    }
}

#[test]
fn on_uniform_vectors() {
    for (profile, metric) in Profile::ALL.into_iter().flat_map(|profile| Metric::ALL.map(|metric| (profile, metric))) {
        let recall = recall_of(profile, metric, uniform);
        assert!(recall >= 0.95, "{profile:?} {metric:?}: {recall}");
    }
}

#[test]
fn under_dot_where_norms_differ_widely() {
    let mut random = fastrand::Rng::with_seed(5);
    let scale = |mut vector: Vec<f32>| {
        let factor = 0.1 + 3.0 * random.f32() * random.f32();
        vector.iter_mut().for_each(|value| *value *= factor);
        vector
    };
    let base: Vec<Vec<f32>> = clustered(COUNT, DIM, 12).into_iter().map(scale).collect();
    let index = built(params(DIM, Metric::Dot), &base);
    check_graph(&index);
    let recall = recall(&index, &clustered(100, DIM, 12), 10, 64);
    assert!(recall >= 0.95, "{recall}");
}

#[test]
fn with_more_ef_comes_more_recall_up_to_everything() {
    let index = built(Params { m: 4, ef_construction: 20, ..params(DIM, Metric::Euclidean) }, &uniform(COUNT, DIM, 4));
    let queries = uniform(60, DIM, 5);
    let recalls: Vec<f64> = [10, 40, 160, COUNT].into_iter().map(|ef| recall(&index, &queries, 10, ef)).collect();
    assert!(recalls.windows(2).all(|pair| pair[0] < pair[1]), "{recalls:?}");
    assert_eq!(recalls[3], 1.0, "a walk that keeps everything reaches everything");
}

#[test]
fn every_kernel_walks_as_well() {
    let vectors = clustered(2_000, 37, 9);
    for kernel in crate::Kernel::available() {
        let index = built(Params { kernel: Some(kernel), ..params(37, Metric::Cosine) }, &vectors);
        assert_eq!(index.kernel(), kernel);
        let recall = recall(&index, &clustered(50, 37, 9), 10, 64);
        assert!(recall >= 0.97, "{kernel:?}: {recall}");
    }
}
