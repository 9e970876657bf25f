//! Every kernel that this processor has against sums in f64.

use super::{Kernel, Measure};

const MEASURES: [Measure; 3] = [Measure::Product, Measure::SquaredDifference, Measure::AbsoluteDifference];

fn lengths() -> impl Iterator<Item = usize> {
    (1..=200).chain([384, 768, 784, 960, 1536, 3072])
}

/// The measure, and the sum of the sizes of its terms, which bounds the rounding.
fn reference(measure: Measure, a: &[f32], b: &[f32]) -> (f64, f64) {
    let terms = a.iter().zip(b).map(|(&a, &b)| {
        let (a, b) = (f64::from(a), f64::from(b));
        match measure {
            Measure::Product => a * b,
            Measure::SquaredDifference => (a - b) * (a - b),
            Measure::AbsoluteDifference => (a - b).abs(),
        }
    });
    terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
}

fn measure_rows(kernel: Kernel, measure: Measure, query: &[f32], rows: &[Vec<f32>]) -> Vec<f32> {
    assert!(kernel.is_available() && rows.iter().all(|row| row.len() == query.len()));
    let pointers: Vec<*const f32> = rows.iter().map(|row| row.as_ptr()).collect();
    let mut out = vec![f32::NAN; rows.len()];
    // SAFETY: every row is as long as the query, and the processor has the kernel.
    unsafe { kernel.rows(measure)(query.as_ptr(), query.len(), &pointers, &mut out) };
    out
}

#[test]
fn every_kernel_agrees_with_f64_sums_at_every_length() {
    let mut random = fastrand::Rng::with_seed(7);
    for dim in lengths() {
        let mut vector = || -> Vec<f32> { (0..dim).map(|_| random.f32() * 4.0 - 2.0).collect() };
        let query = vector();
        let rows: Vec<Vec<f32>> = (0..7).map(|_| vector()).collect();
        for kernel in Kernel::available() {
            for measure in MEASURES {
                for (row, got) in rows.iter().zip(measure_rows(kernel, measure, &query, &rows)) {
                    let (expected, size) = reference(measure, &query, row);
                    let error = (f64::from(got) - expected).abs();
                    assert!(error <= size * 1e-5 + 1e-6, "{kernel:?} {measure:?} {dim}: {got} instead of {expected}");
                }
            }
        }
    }
}

#[test]
fn whole_numbers_come_out_exactly_and_no_value_past_the_end_counts() {
    for dim in lengths() {
        let whole = |at: usize| ((at * 7919) % 23) as f32 - 11.0;
        let query: Vec<f32> = (0..dim).map(whole).collect();
        let mut row: Vec<f32> = (0..dim).map(|at| whole(at + 5)).collect();
        row.extend([f32::NAN; 32]);
        let mut longer = query.clone();
        longer.extend([f32::NAN; 32]);
        for kernel in Kernel::available() {
            for measure in MEASURES {
                let mut out = [0.0; 1];
                // SAFETY: both are longer than `dim`, and the processor has the kernel.
                unsafe { kernel.rows(measure)(longer.as_ptr(), dim, &[row.as_ptr()], &mut out) };
                let (expected, _) = reference(measure, &query, &row[..dim]);
                assert_eq!(f64::from(out[0]), expected, "{kernel:?} {measure:?} {dim}");
            }
        }
    }
}

#[test]
fn rows_that_start_anywhere_are_read_right() {
    let values: Vec<f32> = (0..300).map(|at| at as f32).collect();
    for start in 0..17 {
        let (query, row) = (&values[start..start + 100], values[start + 1..start + 101].to_vec());
        for kernel in Kernel::available() {
            let got = measure_rows(kernel, Measure::AbsoluteDifference, query, std::slice::from_ref(&row));
            assert_eq!(got, [100.0], "{kernel:?} from {start}");
        }
    }
}

#[test]
fn the_best_kernel_is_the_first_available_one() {
    assert_eq!(Some(&Kernel::best()), Kernel::available().first());
    assert_eq!(Kernel::available().last(), Some(&Kernel::Scalar));
}
