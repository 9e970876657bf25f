//! What a benchmark measures: recall against exact answers, and how long searches took.

use std::collections::HashSet;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use vecino_client::PointId;

use super::output::{Style, json};

/// Share of the `k` true neighbours that were found.
///
/// `truth` holds row numbers, nearest first; the id of a row is its number plus `id_offset`.
pub fn recall(found: impl IntoIterator<Item = PointId>, truth: &[u64], k: usize, id_offset: u64) -> f64 {
    let truth: HashSet<PointId> =
        truth.iter().take(k).map(|row| PointId::Number(row.wrapping_add(id_offset))).collect();
    let found: HashSet<PointId> = found.into_iter().take(k).collect();
    found.intersection(&truth).count() as f64 / truth.len() as f64
}

/// Latencies of searches, to a thousandth of their size.
#[derive(Clone, Debug)]
pub struct Latencies {
    micros: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        let micros = Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("the bounds are constants in order");
        Self { micros }
    }
}

impl Latencies {
    /// Adds one. Longer than an hour counts as an hour.
    pub fn record(&mut self, latency: Duration) {
        self.micros.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(MICROS_MAX).max(1));
    }

    /// Adds those of another client.
    pub fn add(&mut self, other: &Self) {
        self.micros += &other.micros;
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.micros.len()
    }

    /// The latency in milliseconds that this share of the searches did not exceed; `None` without searches.
    pub fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        (self.count() > 0).then(|| self.micros.value_at_quantile(quantile) as f64 / 1000.0)
    }
}

/// What one client of a benchmark measured.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Of the searches that were answered.
    pub latencies: Latencies,
    /// Searches that failed.
    pub errors: u64,
    /// Why the first of them failed.
    pub first_error: Option<String>,
    /// Sum of the recalls of the queries that were answered the first time round.
    pub recall_sum: f64,
    /// How many those were.
    pub recall_count: u64,
}

impl Measured {
    /// Adds what another client measured.
    pub fn add(&mut self, other: Self) {
        let Self { latencies, errors, first_error, recall_sum, recall_count } = other;
        self.latencies.add(&latencies);
        self.errors += errors;
        self.first_error = self.first_error.take().or(first_error);
        self.recall_sum += recall_sum;
        self.recall_count += recall_count;
    }

    /// The figures, for a benchmark that took this long.
    pub fn figures(&self, elapsed: Duration) -> Figures {
        let Self { latencies, errors, first_error: _, recall_sum, recall_count } = self;
        Figures {
            recall: (*recall_count > 0).then(|| recall_sum / *recall_count as f64),
            qps: if elapsed.is_zero() { 0.0 } else { latencies.count() as f64 / elapsed.as_secs_f64() },
            p50_ms: latencies.quantile_ms(0.50),
            p99_ms: latencies.quantile_ms(0.99),
            errors: *errors,
        }
    }
}

/// What a benchmark reports. Recall is null without exact answers, latencies are null where nothing was answered.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    recall: Option<f64>,
    qps: f64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    errors: u64,
}

impl Figures {
    /// The figures as text.
    pub fn render(&self, k: u32, style: Style) -> String {
        let Self { recall, qps, p50_ms, p99_ms, errors } = self;
        if style == Style::Json {
            let rounded = |value: f64| (value * 1e4).round() / 1e4;
            return json(&Self { recall: recall.map(rounded), qps: rounded(*qps), ..*self });
        }
        let ms = |ms: &Option<f64>| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.3} ms"));
        let recall = recall.map_or_else(|| "not measured (give --truth)".to_owned(), |recall| format!("{recall:.4}"));
        [
            format!("{:<9} {recall}", format!("recall@{k}")),
            format!("qps       {qps:.1}"),
            format!("p50       {}", ms(p50_ms)),
            format!("p99       {}", ms(p99_ms)),
            format!("errors    {errors}"),
        ]
        .join("\n")
    }
}

/// Longest latency that is told apart: an hour.
const MICROS_MAX: u64 = 3_600_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> Vec<PointId> {
        ids.iter().copied().map(PointId::Number).collect()
    }

    #[test]
    fn recall_is_the_share_of_the_true_k() {
        let truth = [5, 6, 7, 8, 9];
        assert_eq!(recall(ids(&[7, 6, 5]), &truth, 3, 0), 1.0);
        assert_eq!(recall(ids(&[5, 6, 8]), &truth, 3, 0), 2.0 / 3.0, "the fourth neighbour is none of the first three");
        assert_eq!(recall(ids(&[5, 5, 5]), &truth, 3, 0), 1.0 / 3.0, "a repeated hit counts once");
        assert_eq!(recall(ids(&[]), &truth, 3, 0), 0.0);
        assert_eq!(recall(ids(&[105, 106]), &truth, 2, 100), 1.0);
        assert_eq!(recall([PointId::from("5"), 6.into()], &truth, 2, 0), 0.5, "a text is no row number");
    }

    #[test]
    fn quantiles_are_known() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile_ms(0.5), None);
        for ms in 1..=1000 {
            latencies.record(Duration::from_millis(ms));
        }
        let near = |quantile, expected: f64| {
            let found = latencies.quantile_ms(quantile).unwrap();
            assert!((found - expected).abs() <= expected * 0.001 + 0.001, "{found} is not {expected}");
        };
        near(0.5, 500.0);
        near(0.99, 990.0);
        near(1.0, 1000.0);
        let mut extremes = Latencies::default();
        extremes.record(Duration::ZERO);
        extremes.record(Duration::from_secs(100_000));
        assert_eq!(extremes.count(), 2);
        assert!(extremes.quantile_ms(1.0).unwrap() >= 3_600_000.0);
    }

    #[test]
    fn clients_add_up() {
        let client = |ms: &[u64], errors, recalls: &[f64]| {
            let mut measured = Measured { errors, ..Default::default() };
            ms.iter().for_each(|ms| measured.latencies.record(Duration::from_millis(*ms)));
            measured.first_error = (errors > 0).then(|| format!("error {errors}"));
            measured.recall_sum = recalls.iter().sum();
            measured.recall_count = recalls.len() as u64;
            measured
        };
        let mut all = client(&[1, 1], 0, &[1.0, 0.5]);
        all.add(client(&[1, 100], 2, &[0.75]));
        all.add(client(&[], 3, &[]));
        assert_eq!(all.first_error.as_deref(), Some("error 2"));
        let figures = all.figures(Duration::from_secs(2));
        assert_eq!((figures.recall, figures.qps, figures.p50_ms, figures.errors), (Some(0.75), 2.0, Some(1.0), 5));
        assert!((figures.p99_ms.unwrap() - 100.0).abs() < 0.2, "{figures:?}");
    }

    #[test]
    fn figures_have_the_shape_that_scripts_rely_on() {
        let figures =
            Figures { recall: Some(0.98765), qps: 1234.56789, p50_ms: Some(0.5), p99_ms: Some(2.047), errors: 0 };
        assert_eq!(
            figures.render(10, Style::Json),
            r#"{"recall":0.9877,"qps":1234.5679,"p50_ms":0.5,"p99_ms":2.047,"errors":0}"#
        );
        assert_eq!(
            figures.render(10, Style::Plain),
            "recall@10 0.9877\nqps       1234.6\np50       0.500 ms\np99       2.047 ms\nerrors    0"
        );
        let nothing = Measured { errors: 3, ..Default::default() }.figures(Duration::from_secs(1));
        assert_eq!(
            nothing.render(10, Style::Json),
            r#"{"recall":null,"qps":0.0,"p50_ms":null,"p99_ms":null,"errors":3}"#
        );
        assert!(nothing.render(10, Style::Terminal).contains("not measured (give --truth)"));
    }
}
