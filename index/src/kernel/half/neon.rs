//! aarch64 kernels: four values at a time, widened by shifts, which every such processor has.

use std::arch::aarch64::*;

use super::rows::{REBIAS, half_rows_of};

macro_rules! kernel {
    ($rows:ident, $one:ident, |$sum:ident, $a:ident, $b:ident| $step:expr) => {
        half_rows_of!(
            #[target_feature(enable = "neon")]
            $rows,
            $one
        );

        /// # Safety
        /// Both pointers are readable for `dim` values.
        #[inline]
        #[target_feature(enable = "neon")]
        unsafe fn $one(a: *const f32, b: *const u16, dim: usize) -> f32 {
            let step = |$sum: float32x4_t, $a: float32x4_t, $b: float32x4_t| -> float32x4_t { $step };
            let mut sums = [vdupq_n_f32(0.0); 4];
            let mut at = 0;
            while at + 16 <= dim {
                for (lane, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: `at + 16 <= dim`, and the caller promises `dim` readable values.
                    let (a, b) = unsafe { (vld1q_f32(a.add(at + 4 * lane)), vld1_u16(b.add(at + 4 * lane))) };
                    *sum = step(*sum, a, widen(b));
                }
                at += 16;
            }
            while at < dim {
                let left = (dim - at).min(4);
                let (mut a_rest, mut b_rest) = ([0.0f32; 4], [0u16; 4]);
                // SAFETY: at most four of the values that are left are copied, into four.
                unsafe {
                    std::ptr::copy_nonoverlapping(a.add(at), a_rest.as_mut_ptr(), left);
                    std::ptr::copy_nonoverlapping(b.add(at), b_rest.as_mut_ptr(), left);
                }
                // SAFETY: both arrays hold four values.
                let (a, b) = unsafe { (vld1q_f32(a_rest.as_ptr()), vld1_u16(b_rest.as_ptr())) };
                sums[0] = step(sums[0], a, widen(b));
                at += left;
            }
            let [s0, s1, s2, s3] = sums;
            vaddvq_f32(vaddq_f32(vaddq_f32(s0, s1), vaddq_f32(s2, s3)))
        }
    };
}

kernel!(product_rows, product, |sum, a, b| vfmaq_f32(sum, a, b));
kernel!(squared_difference_rows, squared_difference, |sum, a, b| {
    let difference = vsubq_f32(a, b);
    vfmaq_f32(sum, difference, difference)
});
kernel!(absolute_difference_rows, absolute_difference, |sum, a, b| vaddq_f32(sum, vabdq_f32(a, b)));

#[inline]
#[target_feature(enable = "neon")]
fn widen(bits: uint16x4_t) -> float32x4_t {
    let bits = vmovl_u16(bits);
    let magnitude = vshlq_n_u32::<13>(vandq_u32(bits, vdupq_n_u32(0x7fff)));
    let magnitude = vmulq_f32(vreinterpretq_f32_u32(magnitude), vdupq_n_f32(REBIAS));
    let sign = vshlq_n_u32::<16>(vandq_u32(bits, vdupq_n_u32(0x8000)));
    vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(magnitude), sign))
}
