//! From vectors to codes, and from queries to the weights that codes are measured by.

use crate::codes::projection::Projection;
use crate::kernel::Kernel;
use crate::kernel::codes::Width;
use crate::params::Metric;

/// Dimensions up to which a code of 8 bits a coordinate fits into one line.
const EIGHT_DIM_MAX: usize = 64;
/// Coordinates of 4 bits in one line.
const FOUR_DIMS_PER_LINE: usize = 128;
/// Vectors of the sample that the unit is fitted to.
const UNIT_SAMPLE_MAX: usize = 1024;
/// Values of them that the unit is fitted to.
const UNIT_VALUES_MAX: usize = 65_536;
/// How far the largest and smallest coordinate of a code may lie from the middle, in standard deviations: the best is
/// 2.6 for 4 bits of normally distributed values, about 4.5 for 8, and more where there are outliers.
const UNIT_REACHES: [f64; 12] = [1.0, 1.5, 2.0, 2.2, 2.5, 2.8, 3.2, 3.8, 4.5, 5.5, 7.0, 10.0];

/// What a quantizer is told of one vector.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub values: &'a [f32],
    /// Euclidean norm, squared; only read under cosine and dot.
    pub norm_squared: f32,
}

/// How distances by a query's weights compare with squared distances, and those with what the index measures.
#[derive(Clone, Copy, Default)]
pub(crate) struct Gauge {
    /// Scales of the weights.
    pub scales: [f32; 2],
    /// What a distance by the weights lacks, in squared units.
    base: f32,
    /// A squared unit, in squared lengths.
    unit_squared: f32,
    /// Factor and summand that make a squared distance of what the index measures.
    lift: (f32, f32),
    /// Whether what the index measures is such a distance, and not an inner product.
    is_distance: bool,
}

impl Gauge {
    /// What a distance of zero is by the weights; `None` where what the index measures is no distance.
    pub fn origin(&self) -> Option<f32> {
        self.is_distance.then_some(-self.base)
    }

    /// By how much a distance by codes is off, and what it should be.
    pub fn error(&self, coded: f32, exact: f32) -> (f32, f32) {
        let lifted = self.lift.0 * exact + self.lift.1;
        (((coded + self.base) * self.unit_squared - lifted).abs(), lifted.abs())
    }
}

/// Working memory.
#[derive(Default)]
pub(crate) struct Buffers {
    lifted: Vec<f32>,
    centred: Vec<f32>,
    projected: Vec<f32>,
}

/// Trained ranges: how a vector becomes a code.
///
/// Distances between codes are squared Euclidean ones, whatever the metric: under cosine of the vectors made as long as
/// one, under dot of the vectors lifted onto the sphere of the longest (Bachrach et al. 2014), where queries lie on the
/// equator.
pub(crate) struct Quantizer {
    metric: Metric,
    projection: Projection,
    width: Width,
    bytes: usize,
    /// Length of one unit of a code's coordinates, inverted.
    units_per_length: f32,
    /// Square of the longest norm, under dot.
    longest_squared: f32,
    /// Mean squared error of the sample's codes, with what the projection leaves out, in squared lengths.
    pub error: f32,
}

impl Quantizer {
    /// Learns from a sample, of one vector at least.
    pub fn train(sample: &[Source<'_>], metric: Metric, seed: u64, kernel: Kernel) -> Self {
        let dim = sample[0].values.len();
        let longest_squared = sample.iter().map(|source| source.norm_squared).fold(0.0, f32::max);
        let mut buffers = Buffers::default();
        let mut rows = Vec::with_capacity(sample.len() * (dim + 1));
        for source in sample {
            let scale = lift(metric, *source, longest_squared, false, &mut buffers.lifted);
            rows.extend(buffers.lifted.iter().map(|value| value * scale));
        }
        let dim = buffers.lifted.len();
        let width = if dim <= EIGHT_DIM_MAX { Width::Eight } else { Width::Four };
        let projection = Projection::train(&rows, dim, FOUR_DIMS_PER_LINE, seed, kernel);
        let bytes = match width {
            Width::Four => projection.dims().div_ceil(2),
            Width::Eight => projection.dims(),
        };
        let mut this =
            Self { metric, projection, width, bytes, units_per_length: 1.0, longest_squared, error: f32::INFINITY };
        let mut projected = vec![0.0; this.projection.dims()];
        let mut values = Vec::new();
        let mut left_out = 0.0f64;
        let picked = rows.chunks_exact(dim).step_by((sample.len() / UNIT_SAMPLE_MAX).max(1));
        let count = picked.len();
        for row in picked {
            let squared = this.projection.project(row, 1.0, &mut buffers.centred, &mut projected);
            left_out += f64::from(squared - projected.iter().map(|value| value * value).sum::<f32>()).max(0.0);
            values.extend_from_slice(&projected);
        }
        let (units_per_length, error) = best_unit(&values, width);
        this.units_per_length = units_per_length;
        this.error = (error * this.projection.dims() as f64 + left_out / count.max(1) as f64) as f32;
        this
    }

    /// Bytes of one code.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bits of one coordinate.
    pub fn width(&self) -> Width {
        self.width
    }

    /// Bytes of memory that it takes.
    pub fn memory_bytes(&self) -> usize {
        self.projection.bytes()
    }

    /// The code of a vector, into `code`, which is [`Self::bytes`] long; gives its squared error.
    pub fn encode(&self, source: Source<'_>, buffers: &mut Buffers, code: &mut [u8]) -> f32 {
        assert_eq!(code.len(), self.bytes);
        let squared = self.project(source, false, buffers);
        let (largest, middle) = range(self.width);
        let mut kept = 0.0;
        let mut error = 0.0;
        let coordinate = |value: f32| {
            let units = value * self.units_per_length + middle;
            let rounded = (units + 0.5).clamp(0.0, largest + 0.5) as u8;
            (rounded, (units - f32::from(rounded)) * (units - f32::from(rounded)))
        };
        for value in &buffers.projected {
            kept += value * value;
        }
        match self.width {
            Width::Four => {
                let (low, high) = buffers.projected.split_at(self.bytes);
                for (at, code) in code.iter_mut().enumerate() {
                    let (low, low_error) = coordinate(low[at]);
                    let (high, high_error) = high.get(at).map_or((0, 0.0), |value| coordinate(*value));
                    *code = low | (high << 4);
                    error += low_error + high_error;
                }
            }
            Width::Eight => {
                for (value, code) in buffers.projected.iter().zip(code) {
                    let (rounded, rounding) = coordinate(*value);
                    *code = rounded;
                    error += rounding;
                }
            }
        }
        error / (self.units_per_length * self.units_per_length) + (squared - kept).max(0.0)
    }

    /// The weights of a query, twice [`Self::bytes`] of them (see [`crate::kernel::codes`]), and how to read what they measure.
    /// `is_stored` says that it is a stored vector, which under dot lies elsewhere than a query of the caller's.
    pub fn weigh(&self, query: Source<'_>, is_stored: bool, buffers: &mut Buffers, weights: &mut Vec<i8>) -> Gauge {
        self.project(query, !is_stored, buffers);
        let (_, middle) = range(self.width);
        let units = |value: &f32| value * self.units_per_length + middle;
        let base = buffers.projected.iter().map(|value| units(value) * units(value)).sum();
        weights.clear();
        weights.resize(2 * self.bytes, 0);
        let (first, second) = weights.split_at_mut(self.bytes);
        let scales = match self.width {
            Width::Four => {
                buffers
                    .projected
                    .iter_mut()
                    .for_each(|value| *value = -2.0 * (*value * self.units_per_length + middle));
                let (low, high) = buffers.projected.split_at(self.bytes);
                [round_to(first, low), round_to(second, high)]
            }
            Width::Eight => {
                let weight = |value: &mut f32| *value = 128.0 - 2.0 * (*value * self.units_per_length + middle);
                buffers.projected.iter_mut().for_each(weight);
                let coarse = round_to(first, &buffers.projected);
                for (value, first) in buffers.projected.iter_mut().zip(&*first) {
                    *value -= coarse * f32::from(*first);
                }
                [coarse, round_to(second, &buffers.projected)]
            }
        };
        let lift = match self.metric {
            Metric::Cosine => (2.0, 2.0),
            Metric::Dot if !is_stored => {
                let scale =
                    if query.norm_squared > 0.0 { (self.longest_squared / query.norm_squared).sqrt() } else { 1.0 };
                (2.0 * scale, 2.0 * self.longest_squared)
            }
            _ => (1.0, 0.0),
        };
        let unit_squared = 1.0 / (self.units_per_length * self.units_per_length);
        Gauge { scales, base, unit_squared, lift, is_distance: self.metric != Metric::Dot }
    }

    /// Projects into the buffers; gives the squared length before.
    fn project(&self, source: Source<'_>, is_query: bool, buffers: &mut Buffers) -> f32 {
        let Buffers { lifted, centred, projected } = buffers;
        projected.resize(self.projection.dims(), 0.0);
        if self.metric == Metric::Euclidean {
            return self.projection.project(source.values, 1.0, centred, projected);
        }
        let scale = lift(self.metric, source, self.longest_squared, is_query, lifted);
        self.projection.project(lifted, scale, centred, projected)
    }
}

/// Copies a vector into the space that codes are of, and gives what it is to be multiplied with there.
fn lift(metric: Metric, source: Source<'_>, longest_squared: f32, is_query: bool, lifted: &mut Vec<f32>) -> f32 {
    lifted.clear();
    lifted.extend_from_slice(source.values);
    let norm = source.norm_squared.sqrt();
    match metric {
        Metric::Euclidean | Metric::Manhattan => 1.0,
        Metric::Cosine => 1.0 / norm,
        // Every point of the sphere has the same length, so that its distances from a query order as the products,
        // however long that is; as long as they are, it is coded as well as they are.
        Metric::Dot if is_query => {
            lifted.push(0.0);
            if norm > 0.0 { longest_squared.sqrt() / norm } else { 1.0 }
        }
        Metric::Dot => {
            lifted.push((longest_squared - source.norm_squared).max(0.0).sqrt());
            1.0
        }
    }
}

/// The largest coordinate of a code, and the one that stands for zero.
fn range(width: Width) -> (f32, f32) {
    match width {
        Width::Four => (15.0, 7.5),
        Width::Eight => (255.0, 127.5),
    }
}

/// The units to a length that give these values the smallest mean squared error, and that error.
fn best_unit(values: &[f32], width: Width) -> (f32, f64) {
    let (largest, middle) = range(width);
    let spread =
        (values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / values.len().max(1) as f64).sqrt();
    if !(spread > 0.0 && spread.is_finite()) {
        return (1.0, 0.0);
    }
    let error = |reach: f64| {
        let units_per_length = (f64::from(middle) / (reach * spread)) as f32;
        let squares = values.iter().step_by((values.len() / UNIT_VALUES_MAX).max(1)).map(|value| {
            let units = value * units_per_length + middle;
            let error = (units - units.round().clamp(0.0, largest)) / units_per_length;
            f64::from(error * error)
        });
        let (count, sum) = squares.fold((0, 0.0), |(count, sum), square| (count + 1, sum + square));
        (units_per_length, sum / f64::from(count))
    };
    let tried = UNIT_REACHES.map(error);
    tried.into_iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((1.0, 0.0))
}

/// Rounds weights to whole numbers, and gives the scale that makes them what they were.
fn round_to(rounded: &mut [i8], weights: &[f32]) -> f32 {
    let largest = weights.iter().fold(0.0f32, |largest, weight| largest.max(weight.abs()));
    if !(largest > 0.0 && largest.is_finite()) {
        return 0.0;
    }
    let scale = largest / 127.0;
    let inverse = 127.0 / largest;
    for (rounded, weight) in rounded.iter_mut().zip(weights) {
        *rounded = (weight * inverse).round_ties_even() as i8;
    }
    scale
}
