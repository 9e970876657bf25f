//! The limits of the index, which knows nothing of clients, are those that clients are told.

use vecino_index::{self as index, Index, Params};
use vecino_model::{limits, validate};

use super::*;

#[test]
fn the_limits_of_model_and_index_agree() {
    assert_eq!(limits::DIM_MAX as usize, index::DIM_MAX);
    assert_eq!((limits::M_MIN as usize, limits::M_MAX as usize), (index::M_MIN, index::M_MAX));
    assert_eq!(limits::EF_CONSTRUCTION_MAX as usize, index::EF_CONSTRUCTION_MAX);
    assert_eq!((limits::K_MAX as usize, limits::EF_MAX as usize), (index::K_MAX, index::EF_MAX));
    assert_eq!((limits::NORM_MAX, limits::COSINE_NORM_MIN), (index::NORM_MAX, index::COSINE_NORM_MIN));
}

/// What the door lets in the index stores, and what it refuses the index refuses.
#[test]
fn the_rules_of_model_and_index_for_vectors_agree() {
    let metrics = [
        (Metric::Cosine, index::Metric::Cosine),
        (Metric::Euclidean, index::Metric::Euclidean),
        (Metric::Dot, index::Metric::Dot),
        (Metric::Manhattan, index::Metric::Manhattan),
    ];
    let vectors = [
        vec![1.0, 2.0, 3.0],
        vec![0.0; 3],
        vec![-0.0, 1e-15, 0.0],
        vec![1e-16, 0.0, 0.0],
        vec![1e18, 0.0, 0.0],
        vec![1e18, 1e18, 0.0],
        vec![f32::MAX, 0.0, 0.0],
        vec![f32::NAN, 0.0, 0.0],
        vec![0.0, f32::INFINITY, 0.0],
        vec![1.0, 2.0],
        Vec::new(),
    ];
    for (ours, theirs) in metrics {
        let field = FieldSchema { dim: 3, metric: ours, m: 16, ef_construction: 200, profile: Default::default() };
        let index = Index::new(Params::new(3, theirs)).unwrap();
        for vector in &vectors {
            let door = validate::vector("", &field, &Vector(vector.clone()));
            assert_eq!(door.is_ok(), index.validate(vector).is_ok(), "{ours:?} {vector:?}: {door:?}");
        }
    }
}
