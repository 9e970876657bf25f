//! Distance kernels: the inner loops, one set for each instruction set, chosen once and forceable for tests.
//!
//! A kernel measures one query against many rows, so that choosing it costs one indirect call for a whole list of
//! neighbours, and the rows to come are fetched while the ones at hand are measured.
#![allow(unsafe_code, reason = "kernels: vector instructions and reads through the pointers of an arena")]

pub(crate) mod bytes;
#[doc(hidden)]
pub mod cases;
pub(crate) mod codes;
pub(crate) mod fastscan;
pub(crate) mod half;
#[cfg(target_arch = "aarch64")]
mod neon;
pub(crate) mod nibble;
mod prefetch;
mod rows;
mod scalar;
pub(crate) mod sorted;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use prefetch::prefetch;

/// An instruction set that distances can be computed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// x86-64 with AVX-512F.
    Avx512,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// aarch64 with NEON.
    Neon,
    /// Portable.
    Scalar,
}

/// What a kernel computes of two vectors; every metric is one of these and arithmetic on norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Sum of products.
    Product,
    /// Sum of squared differences.
    SquaredDifference,
    /// Sum of absolute differences.
    AbsoluteDifference,
}

/// Measures `query` against each of `rows`, all of them `dim` long, into `out`, which is as long as `rows`.
///
/// # Safety
/// `query` and every pointer of `rows` are readable for `dim` values, and the processor has the instruction set.
pub(crate) type MeasureRows = unsafe fn(query: *const f32, dim: usize, rows: &[*const f32], out: &mut [f32]);

impl Kernel {
    /// Every kernel, the fastest first.
    pub const ALL: [Self; 4] = [Self::Avx512, Self::Avx2, Self::Neon, Self::Scalar];

    /// Whether this processor can run it.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => is_x86_feature_detected!("avx512f"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            Self::Scalar => true,
            #[allow(unreachable_patterns, reason = "which arms remain depends on the architecture")]
            _ => false,
        }
    }

    /// The kernels that this processor can run, the fastest first.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|kernel| kernel.is_available()).collect()
    }

    /// The fastest kernel that this processor can run.
    pub fn best() -> Self {
        static BEST: std::sync::OnceLock<Kernel> = std::sync::OnceLock::new();
        *BEST.get_or_init(|| Self::ALL.into_iter().find(|kernel| kernel.is_available()).unwrap_or(Self::Scalar))
    }

    /// Its name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
            Self::Scalar => "scalar",
        }
    }

    /// The function that computes a measure. Only a kernel that [is available](Self::is_available) may be asked.
    pub(crate) fn rows(self, measure: Measure) -> MeasureRows {
        match (self, measure) {
            #[cfg(target_arch = "x86_64")]
            (Self::Avx512, Measure::Product) => x86::avx512::product_rows,
            #[cfg(target_arch = "x86_64")]
            (Self::Avx512, Measure::SquaredDifference) => x86::avx512::squared_difference_rows,
            #[cfg(target_arch = "x86_64")]
            (Self::Avx512, Measure::AbsoluteDifference) => x86::avx512::absolute_difference_rows,
            #[cfg(target_arch = "x86_64")]
            (Self::Avx2, Measure::Product) => x86::avx2::product_rows,
            #[cfg(target_arch = "x86_64")]
            (Self::Avx2, Measure::SquaredDifference) => x86::avx2::squared_difference_rows,
            #[cfg(target_arch = "x86_64")]
            (Self::Avx2, Measure::AbsoluteDifference) => x86::avx2::absolute_difference_rows,
            #[cfg(target_arch = "aarch64")]
            (Self::Neon, Measure::Product) => neon::product_rows,
            #[cfg(target_arch = "aarch64")]
            (Self::Neon, Measure::SquaredDifference) => neon::squared_difference_rows,
            #[cfg(target_arch = "aarch64")]
            (Self::Neon, Measure::AbsoluteDifference) => neon::absolute_difference_rows,
            (_, Measure::Product) => scalar::product_rows,
            (_, Measure::SquaredDifference) => scalar::squared_difference_rows,
            (_, Measure::AbsoluteDifference) => scalar::absolute_difference_rows,
        }
    }
}
