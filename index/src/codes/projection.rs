//! An affine map that makes every coordinate of a vector say about as much as any other: codes of a few bits a
//! coordinate need that.
//!
//! Vectors are centred on the mean of a sample, and turned. Where the nearest vectors of the sample differ little outside
//! a subspace of fewer dimensions, they are projected onto that (found by subspace iteration) and turned inside it;
//! distances there fall short by what is left out. Otherwise nothing is lost: interleaved blocks of coordinates are turned
//! each, which costs less than turning the whole and spreads the coordinates as well.
#![allow(unsafe_code, reason = "kernels: rows of the matrix are handed over as pointers")]

use ::half::f16;

use crate::codes::matrix::{Matrix, add, product, products};
use crate::kernel::half::MeasureHalfRows;
use crate::kernel::{Kernel, Measure, half};
use crate::random::Random;

/// Share of the squared differences that a subspace must hold to be preferred.
const KEPT_MIN: f32 = 0.92;
/// Pairs of nearest vectors looked at.
const NEAREST_PAIRS: usize = 128;
/// Larger dimensions are turned in blocks: finding a subspace grows with their cube.
const SUBSPACE_DIM_MAX: usize = 2048;
/// Fewer vectors say too little of the subspace that others will lie in.
const SUBSPACE_SAMPLE_MIN: usize = 1024;
/// Inputs of one block at most.
const BLOCK_INPUTS_MAX: usize = 256;
/// Rounds of subspace iteration: the span matters, not its axes.
const ITERATIONS: usize = 3;
/// Rows that one call of a kernel measures.
const ROWS_BATCH: usize = 32;
/// Values whose squares are summed at once, so that rounding does not grow with the dimension.
const SQUARES_BATCH: usize = 64;

/// A trained map from vectors of `dim` values to `dims`.
pub(crate) struct Projection {
    dim: usize,
    dims: usize,
    mean: Vec<f32>,
    /// Inputs of one block, and so the length of a row of the matrix.
    block_inputs: usize,
    blocks: usize,
    /// Rows of unit length, block after block. Halves of the width are as good, and the matrix stays in the cache.
    matrix: Vec<f16>,
    measure: MeasureHalfRows,
}

impl Projection {
    /// Learns from a sample of vectors of `dim` values, one vector at least. `width_step` is the number of dimensions
    /// by which fewer are worth having: one line of codes.
    pub fn train(sample: &[f32], dim: usize, width_step: usize, seed: u64, kernel: Kernel) -> Self {
        let count = (sample.len() / dim).max(1);
        let mut mean = vec![0.0f32; dim];
        for row in sample.chunks_exact(dim) {
            add(&mut mean, row, 1.0 / count as f32);
        }
        let mut random = Random(seed);
        let measure = half::rows(kernel, Measure::Product);
        let subspace = if dim > width_step && dim <= SUBSPACE_DIM_MAX && count >= SUBSPACE_SAMPLE_MIN {
            subspace(sample, &mean, width_step, &mut random, kernel)
        } else {
            None
        };
        if let Some(basis) = subspace {
            let dims = basis.rows;
            let mut turn = Matrix::random(dims, dims, &mut random);
            turn.orthonormalize(kernel, &mut random);
            let mut turned = Matrix::zero(dims, dim);
            for (to, weights) in turned.values.chunks_exact_mut(dim).zip(turn.values.chunks_exact(dims)) {
                for (weight, row) in weights.iter().zip(basis.values.chunks_exact(dim)) {
                    add(to, row, *weight);
                }
            }
            let matrix = turned.values.iter().map(|value| f16::from_f32(*value)).collect();
            return Self { dim, dims, mean, block_inputs: dim, blocks: 1, matrix, measure };
        }
        let blocks = dim.div_ceil(BLOCK_INPUTS_MAX);
        let block_inputs = dim.div_ceil(blocks);
        let mut matrix = Vec::with_capacity(blocks * block_inputs * block_inputs);
        for _ in 0..blocks {
            let mut turn = Matrix::random(block_inputs, block_inputs, &mut random);
            turn.orthonormalize(kernel, &mut random);
            matrix.extend(turn.values.iter().map(|value| f16::from_f32(*value)));
        }
        Self { dim, dims: blocks * block_inputs, mean, block_inputs, blocks, matrix, measure }
    }

    /// Dimensions of what it maps to.
    pub fn dims(&self) -> usize {
        self.dims
    }

    /// Maps `scale` times a vector into `out`, which is [`Self::dims`] long; gives the squared length of the centred
    /// vector. `centred` is working memory.
    pub fn project(&self, vector: &[f32], scale: f32, centred: &mut Vec<f32>, out: &mut [f32]) -> f32 {
        assert!(vector.len() == self.dim && out.len() == self.dims);
        centred.clear();
        let mut squared = 0.0;
        if self.blocks == 1 {
            centred.extend(vector.iter().zip(&self.mean).map(|(value, mean)| value * scale - mean));
        } else {
            // Block `b` takes every `blocks`-th coordinate from `b` on; the last ones may lack theirs.
            for block in 0..self.blocks {
                let taken = (block..self.dim).step_by(self.blocks);
                centred.extend(taken.map(|at| vector[at] * scale - self.mean[at]));
                centred.resize((block + 1) * self.block_inputs, 0.0);
            }
        }
        for values in centred.chunks(SQUARES_BATCH) {
            squared += values.iter().map(|value| value * value).sum::<f32>();
        }
        let rows_per_block = self.dims / self.blocks;
        let mut rows = self.matrix.chunks_exact(self.block_inputs);
        for (inputs, out) in centred.chunks_exact(self.block_inputs).zip(out.chunks_exact_mut(rows_per_block)) {
            for out in out.chunks_mut(ROWS_BATCH) {
                let mut pointers = [std::ptr::null(); ROWS_BATCH];
                for (pointer, row) in pointers.iter_mut().zip(rows.by_ref().take(out.len())) {
                    *pointer = row.as_ptr();
                }
                let pointers = &pointers[..out.len()];
                // SAFETY: the inputs of a block are as long as its rows, and the kernel is one that is available.
                unsafe { (self.measure)(inputs.as_ptr(), self.block_inputs, pointers, out) };
            }
        }
        squared
    }

    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.matrix[..]) + size_of_val(&self.mean[..])
    }
}

/// An orthonormal basis of the smallest subspace, of a multiple of `step` dimensions, that holds nearly all of what
/// vectors differ by from their nearest. Their variance alone would not do: where they lie in clusters, it tells the
/// clusters apart and nothing within them.
fn subspace(sample: &[f32], mean: &[f32], step: usize, random: &mut Random, kernel: Kernel) -> Option<Matrix> {
    let dim = mean.len();
    let covariance = covariance(sample, mean, kernel);
    let differences = nearest_differences(sample, dim, kernel);
    let total: f32 = differences.chunks_exact(dim).map(|row| product(kernel, row, row)).sum();
    let mut basis = Matrix::zero(0, dim);
    while basis.rows + step < dim {
        basis.values.extend((0..step * dim).map(|_| random.normal()));
        basis.rows += step;
        for _ in 0..ITERATIONS {
            basis.orthonormalize(kernel, random);
            let mut next = Matrix::zero(basis.rows, dim);
            for (row, next) in basis.values.chunks_exact(dim).zip(next.values.chunks_exact_mut(dim)) {
                products(kernel, row, &covariance.values, next);
            }
            basis = next;
        }
        basis.orthonormalize(kernel, random);
        let mut along = vec![0.0; basis.rows];
        let kept = differences.chunks_exact(dim).map(|row| {
            products(kernel, row, &basis.values, &mut along);
            along.iter().map(|value| value * value).sum::<f32>()
        });
        if kept.sum::<f32>() >= KEPT_MIN * total {
            return Some(basis);
        }
    }
    None
}

/// What some vectors of the sample differ by from their nearest in it that are not their equals.
fn nearest_differences(sample: &[f32], dim: usize, kernel: Kernel) -> Vec<f32> {
    let function = kernel.rows(Measure::SquaredDifference);
    let rows: Vec<*const f32> = sample.chunks_exact(dim).map(|row| row.as_ptr()).collect();
    let mut distances = vec![0.0; rows.len()];
    let mut differences = Vec::new();
    for row in sample.chunks_exact(dim).step_by((rows.len() / NEAREST_PAIRS).max(1)) {
        // SAFETY: every row is `dim` long, and the kernel is one that is available.
        unsafe { function(row.as_ptr(), dim, &rows, &mut distances) };
        let others = distances.iter().zip(sample.chunks_exact(dim)).filter(|(distance, _)| **distance > 0.0);
        if let Some((_, nearest)) = others.min_by(|a, b| a.0.total_cmp(b.0)) {
            differences.extend(row.iter().zip(nearest).map(|(a, b)| a - b));
        }
    }
    differences
}

/// The products of the sample's centred coordinates, summed over the sample.
fn covariance(sample: &[f32], mean: &[f32], kernel: Kernel) -> Matrix {
    let (dim, count) = (mean.len(), sample.len() / mean.len());
    let mut columns = vec![0.0; sample.len()];
    for (at, row) in sample.chunks_exact(dim).enumerate() {
        for (column, (value, mean)) in row.iter().zip(mean).enumerate() {
            columns[column * count + at] = value - mean;
        }
    }
    let mut covariance = Matrix::zero(dim, dim);
    let mut along = vec![0.0; dim];
    for column in 0..dim {
        let rest = &columns[column * count..];
        products(kernel, &rest[..count], rest, &mut along[column..]);
        for (other, product) in along.iter().enumerate().skip(column) {
            covariance.values[column * dim + other] = *product;
            covariance.values[other * dim + column] = *product;
        }
    }
    covariance
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random_rows(count: usize, dim: usize, seed: u64, spread: impl Fn(usize) -> f32) -> Vec<f32> {
        let mut random = Random(seed);
        (0..count * dim).map(|at| random.normal() * spread(at % dim) + (at % dim) as f32 / 7.0).collect()
    }

    fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
    }

    #[test]
    fn turning_keeps_distances_at_every_dimension() {
        for dim in [1, 2, 3, 17, 100, 128, 255, 257, 300, 600, 2500] {
            let rows = random_rows(20, dim, 5, |at| 1.0 + (at % 5) as f32);
            let projection = Projection::train(&rows, dim, 128, 9, Kernel::best());
            let mut mapped = vec![vec![0.0; projection.dims()]; 20];
            let mut centred = Vec::new();
            for (row, mapped) in rows.chunks_exact(dim).zip(&mut mapped) {
                let squared = projection.project(row, 1.0, &mut centred, mapped);
                let expected = squared_distance(row, &projection.mean);
                assert!((f64::from(squared) / expected - 1.0).abs() < 1e-4, "{dim}: {squared} for {expected}");
            }
            for (a, mapped_a) in rows.chunks_exact(dim).zip(&mapped) {
                for (b, mapped_b) in rows.chunks_exact(dim).zip(&mapped) {
                    let (before, after) = (squared_distance(a, b), squared_distance(mapped_a, mapped_b));
                    assert!((before - after).abs() <= 0.01 * before + 1e-9, "{dim}: {after} for {before}");
                }
            }
        }
    }

    #[test]
    fn what_varies_in_few_dimensions_is_mapped_to_few() {
        let (dim, count) = (300, 2000);
        // Sixty directions hold nearly everything, and lie across all coordinates.
        let directions = random_rows(60, dim, 1, |_| 1.0);
        let mut random = Random(3);
        let mut rows = Vec::new();
        for _ in 0..count {
            let mut row: Vec<f32> = (0..dim).map(|_| random.normal() * 0.1).collect();
            for direction in directions.chunks_exact(dim) {
                add(&mut row, direction, random.normal());
            }
            rows.extend(row);
        }
        for kernel in Kernel::available() {
            let projection = Projection::train(&rows, dim, 128, 4, kernel);
            assert_eq!(projection.dims(), 128, "{kernel:?}");
            let (mut a, mut b, mut centred) = (vec![0.0; 128], vec![0.0; 128], Vec::new());
            for pair in rows.chunks_exact(2 * dim).take(50) {
                let (from, to) = pair.split_at(dim);
                projection.project(from, 1.0, &mut centred, &mut a);
                projection.project(to, 1.0, &mut centred, &mut b);
                let share = squared_distance(&a, &b) / squared_distance(from, to);
                assert!((0.95..1.01).contains(&share), "{kernel:?}: {share}");
            }
        }
        let even = random_rows(count, dim, 8, |_| 1.0);
        assert!(Projection::train(&even, dim, 128, 4, Kernel::best()).dims() >= dim);
    }

    #[test]
    fn the_scale_is_applied_before_centring() {
        let rows = [1.0, 2.0, 3.0, 4.0];
        let projection = Projection::train(&rows, 2, 128, 1, Kernel::Scalar);
        let (mut a, mut b, mut centred) = ([0.0; 2], [0.0; 2], Vec::new());
        projection.project(&[8.0, 2.0], 0.5, &mut centred, &mut a);
        projection.project(&[4.0, 1.0], 1.0, &mut centred, &mut b);
        assert_eq!(a, b);
    }

    #[test]
    fn equal_vectors_and_equal_seeds_give_finite_and_equal_maps() {
        let rows = vec![3.0; 2000 * 200];
        let (mut a, mut b, mut centred) = (vec![0.0; 200], vec![0.0; 200], Vec::new());
        for out in [&mut a, &mut b] {
            let projection = Projection::train(&rows, 200, 128, 1, Kernel::Scalar);
            out.resize(projection.dims(), 0.0);
            projection.project(&[7.0; 200], 1.0, &mut centred, out);
        }
        assert!(a.iter().all(|value| value.is_finite()));
        assert_eq!(a, b);
    }
}
