//! What an index is made with, and the limits on it.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{IndexError, VectorError};
use crate::filter::SlotFilter;
use crate::kernel::Kernel;
use crate::slot::Slot;

/// Largest dimension of a vector.
pub const DIM_MAX: usize = 16_384;
/// Smallest `m`.
pub const M_MIN: usize = 2;
/// Largest `m`.
pub const M_MAX: usize = 128;
/// Largest `ef_construction`.
pub const EF_CONSTRUCTION_MAX: usize = 10_000;
/// Largest `k` of one search.
pub const K_MAX: usize = 10_000;
/// Largest `ef` of one search.
pub const EF_MAX: usize = 100_000;
/// Largest Euclidean norm of a vector: above it a squared distance of two vectors could overflow an f32.
pub const NORM_MAX: f64 = 1e18;
/// Values of vectors that a search may look at one after the other, in about a tenth of a millisecond: exact, with nothing to
/// build. A graph would be quicker from a few thousand vectors on, four times at this size.
const FLAT_VALUES: usize = 1 << 20;
/// Live slots up to which no graph is made: not fewer and not more than these, whatever the dimension.
const FLAT_LIVE_RANGE: (usize, usize) = (1_000, 10_000);
/// Smallest Euclidean norm of a vector under cosine: below it the products of two vectors underflow an f32.
pub const COSINE_NORM_MIN: f64 = 1e-15;

/// How near two vectors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Cosine of the angle between them; higher is nearer. Vectors of length zero are refused.
    Cosine,
    /// Length of the difference; lower is nearer.
    Euclidean,
    /// Inner product; higher is nearer.
    Dot,
    /// Sum of the absolute differences; lower is nearer.
    Manhattan,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Self; 4] = [Self::Cosine, Self::Euclidean, Self::Dot, Self::Manhattan];

    /// Whether a higher score is a better one.
    pub fn higher_is_better(self) -> bool {
        matches!(self, Self::Cosine | Self::Dot)
    }
}

/// What walks of the graph go by. Scores are exact under every profile: what a walk finds is measured on the full vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// One-bit codes of each node's neighbours, kept beside its links: the fastest walk, at the price of memory.
    /// Manhattan distances are not served by such codes; under that metric it walks as [`Self::Plain`] does.
    Fast,
    /// Scalar codes, one for each slot: little memory beside the vectors.
    Compact,
    /// The full vectors: the reference.
    Plain,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Self; 3] = [Self::Fast, Self::Compact, Self::Plain];

    /// Its name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Compact => "compact",
            Self::Plain => "plain",
        }
    }
}

/// What an index is made with.
#[derive(Clone, Debug)]
pub struct Params {
    /// Length of every vector, 1 to [`DIM_MAX`].
    pub dim: usize,
    /// How near two vectors are.
    pub metric: Metric,
    /// Links that a new node makes on each layer, [`M_MIN`] to [`M_MAX`]; a node holds up to twice as many on layer 0.
    pub m: usize,
    /// Candidates kept while a node is linked, 1 to [`EF_CONSTRUCTION_MAX`].
    pub ef_construction: usize,
    /// What walks go by.
    pub profile: Profile,
    /// Up to this many live slots no graph is made, and searches look at all of them; `None` for as many as that is quicker
    /// with, by the dimension. With `usize::MAX` it stays so. A graph that there is stays, however few become of its slots.
    pub flat_live_max: Option<usize>,
    /// Decides the layer of each slot: with one linking thread, equal seeds give equal graphs.
    pub seed: u64,
    /// The distance kernel to use, or `None` for the best that this processor has.
    pub kernel: Option<Kernel>,
}

impl Params {
    /// The usual parameters: `m` 16, `ef_construction` 200.
    pub fn new(dim: usize, metric: Metric) -> Self {
        Self {
            dim,
            metric,
            m: 16,
            ef_construction: 200,
            profile: Profile::Fast,
            flat_live_max: None,
            seed: 0,
            kernel: None,
        }
    }

    /// The number of live slots up to which no graph is made.
    pub(crate) fn flat_slots(&self) -> usize {
        self.flat_live_max.unwrap_or((FLAT_VALUES / self.dim).clamp(FLAT_LIVE_RANGE.0, FLAT_LIVE_RANGE.1))
    }

    /// Checks every value against its limit, and gives the kernel to use.
    pub(crate) fn check(&self) -> Result<Kernel, IndexError> {
        let range = |field, value, min, max| {
            if (min..=max).contains(&value) { Ok(()) } else { Err(IndexError::Param { field, value, min, max }) }
        };
        range("dim", self.dim, 1, DIM_MAX)?;
        range("m", self.m, M_MIN, M_MAX)?;
        range("ef_construction", self.ef_construction, 1, EF_CONSTRUCTION_MAX)?;
        match self.kernel {
            None => Ok(Kernel::best()),
            Some(kernel) if kernel.is_available() => Ok(kernel),
            Some(kernel) => Err(IndexError::KernelUnavailable { kernel }),
        }
    }

    /// Checks a vector that is to be stored or searched for, and gives its Euclidean norm.
    pub(crate) fn check_vector(&self, vector: &[f32]) -> Result<f64, VectorError> {
        if vector.len() != self.dim {
            return Err(VectorError::Dimension { got: vector.len(), expected: self.dim });
        }
        let norm = squared_norm(vector).sqrt();
        // The squares of finite f32 are finite in f64, and so are their sums.
        if !norm.is_finite()
            && let Some((position, &value)) = vector.iter().enumerate().find(|(_, value)| !value.is_finite())
        {
            return Err(VectorError::NotFinite { position, value });
        }
        if norm > NORM_MAX {
            return Err(VectorError::NormTooLarge { norm, max: NORM_MAX });
        }
        if self.metric == Metric::Cosine && norm < COSINE_NORM_MIN {
            return Err(VectorError::NormTooSmall { norm, min: COSINE_NORM_MIN });
        }
        Ok(norm)
    }
}

/// The sum of the squares, in lanes: one sum would wait for each addition before the next.
fn squared_norm(vector: &[f32]) -> f64 {
    let (chunks, rest) = vector.as_chunks::<8>();
    let mut sums = [0.0f64; 8];
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(*value) * f64::from(*value);
        }
    }
    for (sum, value) in sums.iter_mut().zip(rest) {
        *sum += f64::from(*value) * f64::from(*value);
    }
    sums.iter().sum()
}

/// What to search for, and how hard.
#[derive(Clone, Copy)]
pub struct SearchOptions<'a> {
    /// Number of hits wanted, 1 to [`K_MAX`].
    pub k: usize,
    /// Candidates looked at while the graph is walked, 1 to [`EF_MAX`]; raised to `k` where it is less. That
    /// is the average: where neighbours lie close together up to twice as many are looked at, where they stand out down to half.
    pub ef: usize,
    /// Hits that score worse than this are left out.
    pub threshold: Option<f32>,
    /// Only slots of this set are hits.
    pub filter: Option<&'a dyn SlotFilter>,
    /// Set once nobody waits for the hits any more: a scan then ends with those that it has found.
    pub stop: Option<&'a AtomicBool>,
}

impl SearchOptions<'_> {
    /// The best `k`, walking with `ef`, without threshold or filter.
    pub fn new(k: usize, ef: usize) -> Self {
        Self { k, ef, threshold: None, filter: None, stop: None }
    }

    /// Whether nobody waits for the hits any more.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    pub(crate) fn check(&self) -> Result<(), IndexError> {
        for (field, value, max) in [("k", self.k, K_MAX), ("ef", self.ef, EF_MAX)] {
            if !(1..=max).contains(&value) {
                return Err(IndexError::Param { field, value, min: 1, max });
            }
        }
        if self.threshold.is_some_and(f32::is_nan) {
            return Err(IndexError::Threshold);
        }
        Ok(())
    }
}

/// One result of a search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Which slot.
    pub slot: Slot,
    /// Cosine or inner product (higher is better), Euclidean or Manhattan distance (lower is better).
    pub score: f32,
}
