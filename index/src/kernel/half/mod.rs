//! Products of an f32 query with rows of IEEE 754 binary16, which take half the memory and are widened as they are read.

#[cfg(target_arch = "aarch64")]
mod neon;
mod rows;
mod scalar;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use half::f16;

use super::{Kernel, Measure};

/// Measures `query` against each of `rows`, all of them `dim` long, into `out`, which is as long as `rows`. No value of
/// a row is infinite or not a number.
///
/// # Safety
/// `query` and every pointer of `rows` are readable for `dim` values, and the processor has the instruction set.
pub(crate) type MeasureHalfRows = unsafe fn(query: *const f32, dim: usize, rows: &[*const f16], out: &mut [f32]);

/// The function that computes a measure. Only a kernel that [is available](Kernel::is_available) may be asked.
pub(crate) fn rows(kernel: Kernel, measure: Measure) -> MeasureHalfRows {
    #[cfg(target_arch = "x86_64")]
    let has_half = is_x86_feature_detected!("f16c");
    match (kernel, measure) {
        #[cfg(target_arch = "x86_64")]
        (Kernel::Avx512, Measure::Product) => x86::avx512::product_rows,
        #[cfg(target_arch = "x86_64")]
        (Kernel::Avx512, Measure::SquaredDifference) => x86::avx512::squared_difference_rows,
        #[cfg(target_arch = "x86_64")]
        (Kernel::Avx512, Measure::AbsoluteDifference) => x86::avx512::absolute_difference_rows,
        #[cfg(target_arch = "x86_64")]
        (Kernel::Avx2, Measure::Product) if has_half => x86::avx2::product_rows,
        #[cfg(target_arch = "x86_64")]
        (Kernel::Avx2, Measure::SquaredDifference) if has_half => x86::avx2::squared_difference_rows,
        #[cfg(target_arch = "x86_64")]
        (Kernel::Avx2, Measure::AbsoluteDifference) if has_half => x86::avx2::absolute_difference_rows,
        #[cfg(target_arch = "aarch64")]
        (Kernel::Neon, Measure::Product) => neon::product_rows,
        #[cfg(target_arch = "aarch64")]
        (Kernel::Neon, Measure::SquaredDifference) => neon::squared_difference_rows,
        #[cfg(target_arch = "aarch64")]
        (Kernel::Neon, Measure::AbsoluteDifference) => neon::absolute_difference_rows,
        (_, Measure::Product) => scalar::product_rows,
        (_, Measure::SquaredDifference) => scalar::squared_difference_rows,
        (_, Measure::AbsoluteDifference) => scalar::absolute_difference_rows,
    }
}
