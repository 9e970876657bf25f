//! aarch64 kernels: four values at a time, four sums side by side.

use std::arch::aarch64::*;

use super::rows::rows_of;

macro_rules! kernel {
    ($rows:ident, $one:ident, |$sum:ident, $a:ident, $b:ident| $step:expr, $rest:expr) => {
        rows_of!(
            #[target_feature(enable = "neon")]
            $rows,
            $one
        );

        /// # Safety
        /// Both pointers are readable for `dim` values.
        #[inline]
        #[target_feature(enable = "neon")]
        unsafe fn $one(a: *const f32, b: *const f32, dim: usize) -> f32 {
            let step = |$sum: float32x4_t, $a: float32x4_t, $b: float32x4_t| -> float32x4_t { $step };
            let rest: fn(f32, f32) -> f32 = $rest;
            let mut sums = [vdupq_n_f32(0.0); 4];
            let mut at = 0;
            while at + 16 <= dim {
                for (lane, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: `at + 16 <= dim`, and the caller promises `dim` readable values.
                    let (a, b) = unsafe { (vld1q_f32(a.add(at + 4 * lane)), vld1q_f32(b.add(at + 4 * lane))) };
                    *sum = step(*sum, a, b);
                }
                at += 16;
            }
            while at + 4 <= dim {
                // SAFETY: `at + 4 <= dim`.
                let (a, b) = unsafe { (vld1q_f32(a.add(at)), vld1q_f32(b.add(at))) };
                sums[0] = step(sums[0], a, b);
                at += 4;
            }
            let [s0, s1, s2, s3] = sums;
            let mut total = vaddvq_f32(vaddq_f32(vaddq_f32(s0, s1), vaddq_f32(s2, s3)));
            while at < dim {
                // SAFETY: `at < dim`.
                total += unsafe { rest(*a.add(at), *b.add(at)) };
                at += 1;
            }
            total
        }
    };
}

kernel!(product_rows, product, |sum, a, b| vfmaq_f32(sum, a, b), |a, b| a * b);
kernel!(
    squared_difference_rows,
    squared_difference,
    |sum, a, b| {
        let difference = vsubq_f32(a, b);
        vfmaq_f32(sum, difference, difference)
    },
    |a, b| (a - b) * (a - b)
);
kernel!(absolute_difference_rows, absolute_difference, |sum, a, b| vaddq_f32(sum, vabdq_f32(a, b)), |a, b| (a - b)
    .abs());
