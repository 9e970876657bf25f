//! What the codes are signs of: a linear projection to fewer dimensions, learned from a sample.
//!
//! The projection spans the directions in which the sample varies most (found by subspace iteration) and turns them
//! among each other at random, so that each bit says as much as any other. What it leaves out is not zero on average:
//! two neighbours of a node that lie near each other do so in the directions left out as well. The `slope`, fitted on
//! the sample, makes up for it, and for the noise of the signs.
#![allow(unsafe_code, reason = "kernels: rows of the projection are handed over as pointers")]

use crate::kernel::nibble::LINE_DIMS;
use crate::kernel::{Kernel, Measure, MeasureRows};

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
    measure: MeasureRows,
    /// `span` rows, each padded to whole lines.
    projection: Vec<Line>,
    /// The projection of the sample's mean.
    origin: Vec<f32>,
    /// What products of edges, as they are estimated, are multiplied with.
    slope: f32,
    /// One step of the codes of nodes.
    step: f32,
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([f32; LINE_VALUES]);

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
        basis.orthonormalize(&mut random);
        if dims < dim {
            // Dimension by dimension, from the mean.
            let mut columns = Matrix::zero(dim, rows.len());
            for (column, mean) in mean.iter().enumerate() {
                for (at, row) in rows.iter().enumerate() {
                    columns.values[column * rows.len() + at] = row[column] - mean;
                }
            }
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
                    unsafe { (model.measure)(weights.as_ptr(), rows.len(), &pointers, to) };
                }
                next.orthonormalize(&mut random);
                basis = next;
            }
        }
        // The directions that edges are coded in are turned among each other, and so are the others.
        let mut turned = Matrix::zero(span, dim);
        for range in [0..dims, dims..span] {
            let mut turn = Matrix::random(range.len(), range.len(), &mut random);
            turn.orthonormalize(&mut random);
            let of = basis.values.chunks_exact(dim).skip(range.start).take(range.len());
            for (to, weights) in turned.values.chunks_exact_mut(dim).skip(range.start).zip(turn.rows()) {
                for (weight, row) in weights.iter().zip(of.clone()) {
                    add(to, row, *weight);
                }
            }
        }
        let mut model = Self::of(&turned, shape, &mean, kernel);
        model.step = model.fit_step(&rows);
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
        let dim = self.shape.dim;
        assert!(vector.len() == dim && out.len() * dim.div_ceil(LINE_VALUES) == self.projection.len());
        let stride = dim.div_ceil(LINE_VALUES);
        let mut rows = self.projection.chunks_exact(stride);
        for out in out.chunks_mut(ROWS_BATCH) {
            let mut pointers = [std::ptr::null(); ROWS_BATCH];
            for (pointer, row) in pointers.iter_mut().zip(&mut rows) {
                *pointer = row.as_ptr().cast();
            }
            let pointers = &pointers[..out.len()];
            // SAFETY: the vector and every row are `dim` long, and the kernel was checked when the index was made.
            unsafe { (self.measure)(vector.as_ptr(), dim, pointers, out) };
        }
        for (out, origin) in out.iter_mut().zip(&self.origin) {
            *out = *out * scale - if centred { *origin } else { 0.0 };
        }
    }

    /// All its values, in the order in which [`Self::restore`] takes them: slope, step, origin, then row after row.
    pub fn values(&self) -> impl Iterator<Item = f32> + '_ {
        let stride = self.shape.dim.div_ceil(LINE_VALUES);
        let rows = self
            .projection
            .chunks_exact(stride)
            .flat_map(|row| row.iter().flat_map(|line| line.0).take(self.shape.dim));
        [self.slope, self.step].into_iter().chain(self.origin.iter().copied()).chain(rows)
    }

    /// How many values a model of this shape has.
    pub fn values_of(shape: Shape) -> usize {
        2 + shape.span + shape.span * shape.dim
    }

    /// A model of what [`Self::values`] gave: as many values as [`Self::values_of`] says. `None` if no model has such.
    pub fn restore(values: &[f32], shape: Shape, kernel: Kernel) -> Option<Self> {
        let (&[slope, step], rest) = values.split_first_chunk()?;
        let (origin, rows) = rest.split_at_checked(shape.span)?;
        let is_possible = values.iter().all(|value| value.is_finite())
            && (SLOPE_RANGE.0..=SLOPE_RANGE.1).contains(&slope)
            && step > 0.0
            && (1.0 / step).is_finite()
            && rows.iter().all(|value| value.abs() <= 1.001);
        let basis = Matrix { rows: shape.span, columns: shape.dim, values: rows.to_vec() };
        is_possible.then(|| {
            let model = Self::of(&basis, shape, &vec![0.0; shape.dim], kernel);
            Self { slope, step, origin: origin.to_vec(), ..model }
        })
    }

    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.projection[..]) + size_of_val(&self.origin[..])
    }

    fn of(basis: &Matrix, shape: Shape, mean: &[f32], kernel: Kernel) -> Self {
        let mut projection = Vec::new();
        for row in basis.rows() {
            projection.extend(row.chunks(LINE_VALUES).map(|values| {
                let mut line = Line([0.0; LINE_VALUES]);
                line.0[..values.len()].copy_from_slice(values);
                line
            }));
        }
        let measure = kernel.rows(Measure::Product);
        let mut model = Self { shape, measure, projection, origin: vec![0.0; basis.rows], slope: 1.0, step: 1.0 };
        let mut origin = vec![0.0; basis.rows];
        model.project(mean, 1.0, false, &mut origin);
        model.origin = origin;
        model
    }

    /// The step that loses least of the sample.
    fn fit_step(&self, rows: &[&[f32]]) -> f32 {
        let mut values = vec![0.0; self.shape.span];
        let mut all = Vec::new();
        for row in rows.iter().step_by(rows.len().div_ceil(STEP_ROWS)) {
            self.project(row, 1.0, true, &mut values);
            all.extend_from_slice(&values);
        }
        let deviation = (product(&all, &all) / all.len() as f32).sqrt();
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

/// Rows of values, for training.
struct Matrix {
    rows: usize,
    columns: usize,
    values: Vec<f32>,
}

impl Matrix {
    fn zero(rows: usize, columns: usize) -> Self {
        Self { rows, columns, values: vec![0.0; rows * columns] }
    }

    fn random(rows: usize, columns: usize, random: &mut Random) -> Self {
        Self { rows, columns, values: (0..rows * columns).map(|_| random.normal()).collect() }
    }

    fn rows(&self) -> impl Iterator<Item = &[f32]> + Clone {
        self.values.chunks_exact(self.columns.max(1))
    }

    /// Makes the rows orthogonal and of length one, by Gram and Schmidt; a row that depends on those before it is
    /// drawn anew. There are no more rows than columns.
    fn orthonormalize(&mut self, random: &mut Random) {
        for at in 0..self.rows {
            let (before, rest) = self.values.split_at_mut(at * self.columns);
            let row = &mut rest[..self.columns];
            loop {
                let length = product(row, row).sqrt();
                row.iter_mut().for_each(|value| *value /= length);
                // Twice is enough: the first turn leaves rounding errors as large as what it took away.
                for _ in 0..2 {
                    for other in before.chunks_exact(self.columns) {
                        let along = product(row, other);
                        add(row, other, -along);
                    }
                }
                let left = product(row, row).sqrt();
                if left > DEPENDENT {
                    row.iter_mut().for_each(|value| *value /= left);
                    break;
                }
                row.fill_with(|| random.normal());
            }
        }
    }
}

/// The code of a value, in steps of which `inverse` is the inverse.
#[inline(always)]
pub(crate) fn code(value: f32, inverse: f32) -> u8 {
    (value * inverse + 8.0).clamp(0.0, 15.0) as u8
}

fn product(a: &[f32], b: &[f32]) -> f32 {
    eights(a, b, |a, b| a * b)
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

fn add(to: &mut [f32], from: &[f32], times: f32) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += times * from);
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// About normal: the sum of four even ones.
    fn normal(&mut self) -> f32 {
        let bits = self.next();
        (0..4).map(|at| f32::from((bits >> (16 * at)) as u16) / 32_768.0 - 1.0).sum()
    }
}

/// Edges have this many dimensions, and a share of the vectors' more.
const DIMS_BASE: usize = 64;
/// See [`DIMS_BASE`].
const DIMS_SHARE: usize = 4;
/// Edges of vectors that have more have at least so many dimensions.
const DIMS_MIN: usize = 96;
/// Edges have at most so many dimensions.
const DIMS_MAX: usize = 320;
/// Dimensions of edges come in whole lines of codes.
const DIMS_STEP: usize = 16;
/// Nodes have a line of codes for so many dimensions of the vectors.
const SPAN_SHARE: usize = 192;
/// Most lines of codes of a node.
const SPAN_LINES_MAX: usize = 4;
/// Rows that the step is fitted on.
const STEP_ROWS: usize = 256;
/// Ranges of codes that are tried, in deviations.
const STEPS: [f32; 8] = [3.5, 4.0, 4.5, 5.0, 5.6, 6.3, 7.1, 8.0];
const LINE_VALUES: usize = 16;
/// Rows that one call of a kernel measures.
const ROWS_BATCH: usize = 32;
/// Rounds of subspace iteration: the span matters, not its axes.
const ITERATIONS: usize = 3;
/// What is left of a row of length one that depends on others.
const DEPENDENT: f32 = 1e-4;
/// Smaller samples say nothing about the slope.
const SLOPE_ROWS_MIN: usize = 256;
const SLOPE_QUERIES: usize = 64;
const SLOPE_NEIGHBOURS: usize = 32;
/// A slope outside comes of a sample that is no sample.
const SLOPE_RANGE: (f32, f32) = (0.5, 2.0);
