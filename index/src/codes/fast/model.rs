//! What the codes are signs of: a linear projection to fewer dimensions, learned from a sample.
//!
//! The projection spans the directions in which the sample varies most (found by subspace iteration) and turns them
//! among each other at random, so that each bit says as much as any other. What it leaves out is not zero on average:
//! two neighbours of a node that lie near each other do so in the directions left out as well. The `slope`, fitted on
//! the sample, makes up for it, and for the noise of the signs.
//!
//! The projection is a matrix of eight bits a value, and so is a vector while it is projected, seen from the mean: a
//! matrix of f32 would not stay in the cache beside what a walk reads. What is rounded is the projection itself, the same for all,
//! and a thousandth of a vector's length, far less than what the codes round off.
#![allow(unsafe_code, reason = "kernels: columns of the sample are handed over as pointers")]

use std::cell::RefCell;

use crate::codes::matrix::{Matrix, add, product};
use crate::kernel::bytes::ByteMatrix;
use crate::kernel::nibble::LINE_DIMS;
use crate::kernel::{Kernel, Measure};
use crate::random::Random;

/// Codes of edges have this many dimensions, and [`DIMS_SHARE`] more.
const DIMS_BASE: usize = 64;
/// This share of the dimensions of the vectors is added to [`DIMS_BASE`].
const DIMS_SHARE: usize = 4;
/// Codes of edges have at least this many dimensions, if the vectors have more.
const DIMS_MIN: usize = 96;
/// Codes of edges have at most this many dimensions.
const DIMS_MAX: usize = 320;
/// Dimensions of edges come in whole lines of codes.
const DIMS_STEP: usize = 16;
/// Codes of nodes have one line for this many dimensions of the vectors.
const SPAN_SHARE: usize = 192;
/// Most lines of codes of a node.
const SPAN_LINES_MAX: usize = 4;
/// Rows that the step is fitted on.
const STEP_ROWS: usize = 256;
/// Ranges of codes that are tried, in deviations.
const STEPS: [f32; 8] = [3.5, 4.0, 4.5, 5.0, 5.6, 6.3, 7.1, 8.0];
/// Smaller values than a step of this are zero.
const BYTE_LARGEST_MIN: f32 = 1e-30;
/// Steps are multiples of this many of an f32's last bits: a product with seven bits keeps all of its own.
const STEP_BITS: u32 = 1 << 8;
/// Rounds of subspace iteration: the span matters, not its axes.
const ITERATIONS: usize = 3;
/// Smaller samples say nothing about the slope.
const SLOPE_ROWS_MIN: usize = 256;
/// Queries that the slope is fitted on.
const SLOPE_QUERIES: usize = 64;
/// Neighbours of each query, and of each node near it, that the slope is fitted on.
const SLOPE_NEIGHBOURS: usize = 32;
/// A slope outside comes of a sample that is no sample.
const SLOPE_RANGE: (f32, f32) = (0.5, 2.0);

thread_local! {
    static ROUNDED: RefCell<Rounded> = RefCell::default();
}

/// How many dimensions codes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Of the vectors.
    pub dim: usize,
    /// Of the projection, and of the codes of nodes.
    pub span: usize,
    /// The first of those, which the codes of edges have: whole lines of them.
    pub dims: usize,
}

/// A learned projection.
pub(crate) struct Model {
    shape: Shape,
    /// `span` rows, each to be multiplied with its scale.
    projection: ByteMatrix,
    scales: Vec<f32>,
    /// The sample's mean.
    mean: Vec<f32>,
    /// What products of edges, as they are estimated, are multiplied with.
    slope: f32,
    /// One step of the codes of nodes.
    step: f32,
}

/// Room for a vector in eight bits a value, and for its products.
#[derive(Default)]
struct Rounded {
    fours: Vec<[i8; 4]>,
    values: Vec<f32>,
    products: Vec<i32>,
}

impl Shape {
    /// The shape for vectors of `dim` values: a compromise between the memory that codes take and how well they
    /// estimate, measured.
    pub fn new(dim: usize) -> Self {
        let dims = (DIMS_BASE + dim / DIMS_SHARE).clamp(DIMS_MIN, DIMS_MAX) / DIMS_STEP * DIMS_STEP;
        if dim <= dims {
            let span = dim.next_multiple_of(DIMS_STEP);
            return Self { dim, span, dims: span };
        }
        let lines = dim.div_ceil(SPAN_SHARE).min(SPAN_LINES_MAX);
        Self { dim, span: dim.min(lines * LINE_DIMS), dims }
    }
}

impl Model {
    /// Learns from a sample of vectors, one after another: one vector at least.
    pub fn train(sample: &[f32], shape: Shape, seed: u64, kernel: Kernel) -> Self {
        let Shape { dim, span, dims } = shape;
        let mut random = Random(seed);
        let rows: Vec<&[f32]> = sample.chunks_exact(dim).collect();
        let mut mean = vec![0.0f32; dim];
        for row in &rows {
            add(&mut mean, row, 1.0 / rows.len() as f32);
        }
        let mut basis = Matrix::random(span.min(dim), dim, &mut random);
        basis.orthonormalize(kernel, &mut random);
        if dims < dim {
            // Dimension by dimension, from the mean.
            let mut columns = Matrix::zero(dim, rows.len());
            for (column, mean) in mean.iter().enumerate() {
                for (at, row) in rows.iter().enumerate() {
                    columns.values[column * rows.len() + at] = row[column] - mean;
                }
            }
            let measure = kernel.rows(Measure::Product);
            for _ in 0..ITERATIONS {
                let model = Self::of(&basis, shape, &mean, kernel);
                let mut weights = Matrix::zero(basis.rows, rows.len());
                let mut projected = vec![0.0; basis.rows];
                for (at, row) in rows.iter().enumerate() {
                    model.project(row, 1.0, true, &mut projected);
                    for (weight, value) in weights.values[at..].iter_mut().step_by(rows.len()).zip(&projected) {
                        *weight = *value;
                    }
                }
                let mut next = Matrix::zero(basis.rows, dim);
                let pointers: Vec<*const f32> = columns.values.chunks_exact(rows.len()).map(<[f32]>::as_ptr).collect();
                for (weights, to) in weights.values.chunks_exact(rows.len()).zip(next.values.chunks_exact_mut(dim)) {
                    // SAFETY: weights and columns are as long as the sample has rows; the kernel was checked when the
                    // index was made.
                    unsafe { (measure)(weights.as_ptr(), rows.len(), &pointers, to) };
                }
                next.orthonormalize(kernel, &mut random);
                basis = next;
            }
        }
        // The directions that edges are coded in are turned among each other, and so are the others.
        let mut turned = Matrix::zero(span, dim);
        for range in [0..dims, dims..span] {
            let mut turn = Matrix::random(range.len(), range.len(), &mut random);
            turn.orthonormalize(kernel, &mut random);
            let of = basis.values.chunks_exact(dim).skip(range.start).take(range.len());
            for (to, weights) in turned.values.chunks_exact_mut(dim).skip(range.start).zip(turn.rows()) {
                for (weight, row) in weights.iter().zip(of.clone()) {
                    add(to, row, *weight);
                }
            }
        }
        let mut model = Self::of(&turned, shape, &mean, kernel);
        model.step = model.fit_step(&rows, kernel);
        model.slope = model.fit_slope(&rows, &mut random);
        model
    }

    /// How many dimensions it has.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// What products of edges, as they are estimated, are multiplied with.
    pub fn slope(&self) -> f32 {
        self.slope
    }

    /// One step of the codes of nodes.
    pub fn step(&self) -> f32 {
        self.step
    }

    /// Projects a vector times `scale`, seen from the sample's mean if it is to be `centred`.
    pub fn project(&self, vector: &[f32], scale: f32, centred: bool, out: &mut [f32]) {
        assert!(vector.len() == self.shape.dim && out.len() == self.shape.span);
        ROUNDED.with_borrow_mut(|Rounded { fours, values, products }| {
            values.clear();
            if centred {
                values.extend(vector.iter().zip(&self.mean).map(|(value, mean)| value * scale - mean));
            } else {
                values.extend(vector.iter().map(|value| value * scale));
            }
            fours.resize(values.len().div_ceil(4), [0; 4]);
            let step = round_to_bytes(values, fours.as_flattened_mut());
            products.resize(out.len(), 0);
            self.projection.products(fours, products);
            for ((out, product), scale) in out.iter_mut().zip(&*products).zip(&self.scales) {
                *out = *product as f32 * (scale * step);
            }
        });
    }

    /// All its values, in the order in which [`Self::restore`] takes them: slope, step, mean, then row after row.
    pub fn values(&self) -> impl Iterator<Item = f32> + '_ {
        let row = |(row, scale): (usize, &f32)| {
            let scale = *scale;
            self.projection.row(row).take(self.shape.dim).map(move |value| f32::from(value) * scale)
        };
        let rows = self.scales.iter().enumerate().flat_map(row);
        [self.slope, self.step].into_iter().chain(self.mean.iter().copied()).chain(rows)
    }

    /// How many values a model of this shape has.
    pub fn values_of(shape: Shape) -> usize {
        2 + shape.dim + shape.span * shape.dim
    }

    /// A model of what [`Self::values`] gave: as many values as [`Self::values_of`] says. `None` if no model has such.
    pub fn restore(values: &[f32], shape: Shape, kernel: Kernel) -> Option<Self> {
        let (&[slope, step], rest) = values.split_first_chunk()?;
        let (mean, rows) = rest.split_at_checked(shape.dim)?;
        let is_possible = values.iter().all(|value| value.is_finite())
            && (SLOPE_RANGE.0..=SLOPE_RANGE.1).contains(&slope)
            && step > 0.0
            && (1.0 / step).is_finite()
            && rows.iter().all(|value| value.abs() <= 1.001);
        let basis = Matrix { rows: shape.span, columns: shape.dim, values: rows.to_vec() };
        is_possible.then(|| {
            let model = Self::of(&basis, shape, mean, kernel);
            Self { slope, step, ..model }
        })
    }

    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> usize {
        self.projection.bytes() + size_of_val(&self.scales[..]) + size_of_val(&self.mean[..])
    }

    fn of(basis: &Matrix, shape: Shape, mean: &[f32], kernel: Kernel) -> Self {
        let mut rounded = vec![0i8; basis.values.len()];
        let rows = basis.rows().zip(rounded.chunks_exact_mut(shape.dim.max(1)));
        let scales: Vec<f32> = rows.map(|(row, rounded)| round_to_bytes(row, rounded)).collect();
        let projection = ByteMatrix::new(rounded.chunks_exact(shape.dim.max(1)), shape.dim, kernel);
        Self { shape, projection, scales, mean: mean.to_vec(), slope: 1.0, step: 1.0 }
    }

    /// The step that loses least of the sample.
    fn fit_step(&self, rows: &[&[f32]], kernel: Kernel) -> f32 {
        let mut values = vec![0.0; self.shape.span];
        let mut all = Vec::new();
        for row in rows.iter().step_by(rows.len().div_ceil(STEP_ROWS)) {
            self.project(row, 1.0, true, &mut values);
            all.extend_from_slice(&values);
        }
        let deviation = (product(kernel, &all, &all) / all.len() as f32).sqrt();
        if !(deviation > 0.0 && deviation.is_finite()) {
            return 1.0;
        }
        let loss = |step: f32| -> f64 {
            let lost = |value: &f32| f64::from(value - (f32::from(code(*value, 1.0 / step)) - 7.5) * step);
            all.iter().map(|value| lost(value) * lost(value)).sum()
        };
        let steps = STEPS.map(|width| width * deviation / 15.0);
        steps.into_iter().min_by(|a, b| loss(*a).total_cmp(&loss(*b))).unwrap_or(1.0)
    }

    /// The least-squares fit of true products to estimated ones, over queries, nodes near them and their neighbours.
    fn fit_slope(&self, rows: &[&[f32]], random: &mut Random) -> f32 {
        if rows.len() < SLOPE_ROWS_MIN {
            return 1.0;
        }
        let nearest = |to: &[f32], count: usize| {
            let mut near: Vec<(f32, usize)> =
                rows.iter().enumerate().map(|(at, row)| (squared_difference(to, row), at)).collect();
            near.select_nth_unstable_by(count, |a, b| a.0.total_cmp(&b.0));
            near.truncate(count);
            near
        };
        let Shape { span, dims, .. } = self.shape;
        let mut projected = vec![0.0; 3 * span];
        let (mut both, mut estimates) = (0.0f64, 0.0f64);
        for _ in 0..SLOPE_QUERIES {
            let query = rows[random.below(rows.len())];
            let around = nearest(query, SLOPE_NEIGHBOURS);
            let (distance, node) = around[random.below(around.len())];
            let node = rows[node];
            let (of_query, rest) = projected.split_at_mut(span);
            let (of_node, of_other) = rest.split_at_mut(span);
            self.project(query, 1.0, true, of_query);
            self.project(node, 1.0, true, of_node);
            for (squared, other) in nearest(node, SLOPE_NEIGHBOURS) {
                let other = rows[other];
                self.project(other, 1.0, true, of_other);
                let (mut norm, mut size, mut signed, mut product) = (0.0f32, 0.0f32, 0.0f32, 0.0f32);
                for (at, ((query, node), other)) in of_query.iter().zip(&*of_node).zip(&*of_other).enumerate() {
                    let difference = other - node;
                    product += (query - node) * difference;
                    if at < dims {
                        norm += difference * difference;
                        size += difference.abs();
                        signed += (query - node) * difference.signum();
                    }
                }
                let weight = f64::from(squared) * f64::from(distance);
                if size == 0.0 || weight == 0.0 {
                    continue;
                }
                let estimate = f64::from(norm / size * signed);
                both += estimate * f64::from(product) / weight;
                estimates += estimate * estimate / weight;
            }
        }
        if estimates > 0.0 { ((both / estimates) as f32).clamp(SLOPE_RANGE.0, SLOPE_RANGE.1) } else { 1.0 }
    }
}

/// Rounds values to signed bytes; gives what one step of them stands for. What it gives has so few digits that its products with
/// bytes are exact: rounded again, they give the same bytes and the same step.
fn round_to_bytes(values: &[f32], bytes: &mut [i8]) -> f32 {
    let largest = values.iter().fold(BYTE_LARGEST_MIN, |largest, value| largest.max(value.abs()));
    let step = f32::from_bits((largest / 127.0).to_bits().next_multiple_of(STEP_BITS));
    let inverse = 1.0 / step;
    for (byte, value) in bytes.iter_mut().zip(values) {
        let scaled = value * inverse;
        *byte = (scaled + f32::copysign(0.5, scaled)) as i8;
    }
    step
}

/// The code of a value, in steps of which `inverse` is the inverse.
#[inline(always)]
pub(crate) fn code(value: f32, inverse: f32) -> u8 {
    (value * inverse + 8.0).clamp(0.0, 15.0) as u8
}

fn squared_difference(a: &[f32], b: &[f32]) -> f32 {
    eights(a, b, |a, b| (a - b) * (a - b))
}

#[inline(always)]
fn eights(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0f32; 8];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            sums[lane] += term(a[lane], b[lane]);
        }
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| term(*a, *b)).sum::<f32>()
}
