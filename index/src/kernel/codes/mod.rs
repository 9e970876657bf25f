//! Distances from one query to many codes of 4 or 8 bits a coordinate, in whole numbers.
//!
//! With a coordinate `c` of a code and `q` of the query in the same units, the squared distance is the sum of
//! `c² - 2 q c + q²`. The last term is the same for every code. The first is computed from the code alone, so that a code
//! carries nothing beside its coordinates, which at 128 dimensions and 4 bits fill one cache line exactly. For the one
//! between, the query is made of weights of 8 bits and a scale, and each kernel gives
//!
//! `sum of squares + scales[0] * sum(c * weights[0]) + scales[1] * sum(c * weights[1])`
//!
//! | width | a byte `j` of a code | squares | `weights[0]`, `weights[1]`, each as long as the code in bytes |
//! |---|---|---|---|
//! | 4 bits | coordinate `j` in its low half, `j + bytes` in its high half | `c²` | one for each half |
//! | 8 bits | coordinate `j` | `c (c - 128)`, so that one factor has a sign | both for `c`: a coarse one, and what it lacks |

#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::Kernel;

/// Bits of one coordinate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    Four,
    Eight,
}

/// Measures weights against each of `codes`, all of them `bytes` long, into `out`, which is as long as `codes`.
///
/// # Safety
/// `weights` is readable for twice `bytes`, every code for `bytes`, and the processor has the instruction set.
pub(crate) type MeasureCodes =
    unsafe fn(weights: *const i8, scales: [f32; 2], bytes: usize, codes: &[*const u8], out: &mut [f32]);

/// The function of a kernel for codes of one width. Only one that [is available](Kernel::is_available) may be asked.
pub(crate) fn measure(kernel: Kernel, width: Width) -> MeasureCodes {
    #[cfg(target_arch = "x86_64")]
    let has_vnni = is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vnni");
    match (kernel, width) {
        #[cfg(target_arch = "x86_64")]
        (Kernel::Avx512, Width::Four) if has_vnni => x86::avx512::measure_four,
        #[cfg(target_arch = "x86_64")]
        (Kernel::Avx512, Width::Eight) if has_vnni => x86::avx512::measure_eight,
        // Every processor with AVX-512 has AVX2 and FMA as well.
        #[cfg(target_arch = "x86_64")]
        (Kernel::Avx512 | Kernel::Avx2, Width::Four) => x86::avx2::measure_four,
        #[cfg(target_arch = "x86_64")]
        (Kernel::Avx512 | Kernel::Avx2, Width::Eight) => x86::avx2::measure_eight,
        #[cfg(target_arch = "aarch64")]
        (Kernel::Neon, Width::Four) => neon::measure_four,
        #[cfg(target_arch = "aarch64")]
        (Kernel::Neon, Width::Eight) => neon::measure_eight,
        (_, Width::Four) => scalar::measure_four,
        (_, Width::Eight) => scalar::measure_eight,
    }
}
