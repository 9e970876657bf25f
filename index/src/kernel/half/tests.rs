//! Every kernel that this processor has against sums in f64.

use half::f16;

use super::rows;
use crate::kernel::{Kernel, Measure};

const MEASURES: [Measure; 3] = [Measure::Product, Measure::SquaredDifference, Measure::AbsoluteDifference];

/// The measure, and the sum of the sizes of its terms, which bounds the rounding.
fn reference(measure: Measure, a: &[f32], b: &[f16]) -> (f64, f64) {
    let terms = a.iter().zip(b).map(|(&a, &b)| {
        let (a, b) = (f64::from(a), b.to_f64());
        match measure {
            Measure::Product => a * b,
            Measure::SquaredDifference => (a - b) * (a - b),
            Measure::AbsoluteDifference => (a - b).abs(),
        }
    });
    terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
}

fn measured(kernel: Kernel, measure: Measure, query: &[f32], dim: usize, row: &[f16]) -> f32 {
    assert!(kernel.is_available() && query.len() >= dim && row.len() >= dim);
    let mut out = [f32::NAN];
    // SAFETY: query and row have `dim` values, and the processor has the kernel.
    unsafe { rows(kernel, measure)(query.as_ptr(), dim, &[row.as_ptr()], &mut out) };
    out[0]
}

#[test]
fn every_kernel_agrees_with_f64_sums_at_every_length_and_reads_nothing_past_the_end() {
    let mut random = fastrand::Rng::with_seed(11);
    for dim in (1..=200).chain([384, 768, 784, 960, 1536, 3072]) {
        let mut query: Vec<f32> = (0..dim).map(|_| random.f32() * 4.0 - 2.0).collect();
        let mut row: Vec<f16> = (0..dim).map(|_| f16::from_f32(random.f32() * 4.0 - 2.0)).collect();
        query.extend([f32::NAN; 32]);
        row.extend([f16::NAN; 32]);
        for kernel in Kernel::available() {
            for measure in MEASURES {
                let got = measured(kernel, measure, &query, dim, &row);
                let (expected, size) = reference(measure, &query[..dim], &row[..dim]);
                let error = (f64::from(got) - expected).abs();
                assert!(error <= size * 1e-5 + 1e-6, "{kernel:?} {measure:?} {dim}: {got} instead of {expected}");
            }
        }
    }
}

#[test]
fn every_finite_half_is_widened_exactly() {
    for bits in 0..=u16::MAX {
        let value = f16::from_bits(bits);
        if value.is_finite() {
            for kernel in Kernel::available() {
                let got = measured(kernel, Measure::Product, &[1.0], 1, &[value]);
                assert_eq!(got, value.to_f32(), "{kernel:?} {bits:#06x}");
            }
        }
    }
}
