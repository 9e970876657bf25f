//! How good a vector is for a query, exactly: for hits whose points were overwritten since an index scored them.

use vecino_model::{Metric, Vector};

/// The score of a vector, which way round it may be: the cosine of the angle, the product, or the distance.
///
/// # Panics
/// In tests only, when the dimensions differ: both were checked against the schema.
pub fn score(metric: Metric, query: &Vector, vector: &Vector) -> f32 {
    debug_assert_eq!(query.0.len(), vector.0.len());
    let pairs = || query.0.iter().zip(&vector.0).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let product = || pairs().map(|(a, b)| a * b).sum::<f64>();
    let score = match metric {
        Metric::Cosine => product() / (query.norm() * vector.norm()),
        Metric::Dot => product(),
        Metric::Euclidean => pairs().map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt(),
        Metric::Manhattan => pairs().map(|(a, b)| (a - b).abs()).sum(),
    };
    score as f32
}

/// Whether a score is at least as good as another.
pub fn is_as_good(metric: Metric, score: f32, other: f32) -> bool {
    if metric.higher_is_better() { score >= other } else { score <= other }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_those_of_the_metric() {
        let (query, vector) = (Vector(vec![3.0, 4.0]), Vector(vec![4.0, -3.0]));
        assert_eq!(score(Metric::Cosine, &query, &query), 1.0);
        assert_eq!(score(Metric::Dot, &query, &vector), 0.0);
        assert_eq!(score(Metric::Euclidean, &query, &vector), 50f32.sqrt());
        assert_eq!(score(Metric::Manhattan, &query, &vector), 8.0);
        assert!(is_as_good(Metric::Dot, 2.0, 2.0) && is_as_good(Metric::Dot, 3.0, 2.0));
        assert!(!is_as_good(Metric::Euclidean, 3.0, 2.0));
    }
}
