//! x86-64 kernels: the processor widens sixteen or eight values at once.

/// AVX-512F: sixteen values at a time, four sums side by side.
pub(crate) mod avx512 {
    use std::arch::x86_64::*;

    use crate::kernel::half::rows::half_rows_of;

    macro_rules! kernel {
        ($rows:ident, $one:ident, |$sum:ident, $a:ident, $b:ident| $step:expr) => {
            half_rows_of!(
                #[target_feature(enable = "avx512f")]
                $rows,
                $one
            );

            /// # Safety
            /// Both pointers are readable for `dim` values.
            #[inline]
            #[target_feature(enable = "avx512f")]
            unsafe fn $one(a: *const f32, b: *const u16, dim: usize) -> f32 {
                let step = |$sum: __m512, $a: __m512, $b: __m512| -> __m512 { $step };
                let mut sums = [_mm512_setzero_ps(); 4];
                let mut at = 0;
                while at + 64 <= dim {
                    for (lane, sum) in sums.iter_mut().enumerate() {
                        let at = at + 16 * lane;
                        // SAFETY: `at + 16 <= dim`, and the caller promises `dim` readable values.
                        let (a, b) = unsafe { (_mm512_loadu_ps(a.add(at)), _mm256_loadu_si256(b.add(at).cast())) };
                        *sum = step(*sum, a, _mm512_cvtph_ps(b));
                    }
                    at += 64;
                }
                while at + 16 <= dim {
                    // SAFETY: `at + 16 <= dim`.
                    let (a, b) = unsafe { (_mm512_loadu_ps(a.add(at)), _mm256_loadu_si256(b.add(at).cast())) };
                    sums[0] = step(sums[0], a, _mm512_cvtph_ps(b));
                    at += 16;
                }
                if at < dim {
                    let (mut a_rest, mut b_rest) = ([0.0f32; 16], [0u16; 16]);
                    // SAFETY: fewer than sixteen values are left, and they are copied into sixteen.
                    unsafe {
                        std::ptr::copy_nonoverlapping(a.add(at), a_rest.as_mut_ptr(), dim - at);
                        std::ptr::copy_nonoverlapping(b.add(at), b_rest.as_mut_ptr(), dim - at);
                    }
                    // SAFETY: the array holds sixteen values.
                    let a = unsafe { _mm512_loadu_ps(a_rest.as_ptr()) };
                    // SAFETY: as above.
                    let b = unsafe { _mm256_loadu_si256(b_rest.as_ptr().cast()) };
                    sums[1] = step(sums[1], a, _mm512_cvtph_ps(b));
                }
                let [s0, s1, s2, s3] = sums;
                _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(s0, s1), _mm512_add_ps(s2, s3)))
            }
        };
    }

    kernel!(product_rows, product, |sum, a, b| _mm512_fmadd_ps(a, b, sum));
    kernel!(squared_difference_rows, squared_difference, |sum, a, b| {
        let difference = _mm512_sub_ps(a, b);
        _mm512_fmadd_ps(difference, difference, sum)
    });
    kernel!(absolute_difference_rows, absolute_difference, |sum, a, b| {
        _mm512_add_ps(sum, _mm512_abs_ps(_mm512_sub_ps(a, b)))
    });
}

/// AVX2 with FMA and F16C: eight values at a time, four sums side by side.
pub(crate) mod avx2 {
    use std::arch::x86_64::*;

    use crate::kernel::half::rows::half_rows_of;

    macro_rules! kernel {
        ($rows:ident, $one:ident, |$sum:ident, $a:ident, $b:ident| $step:expr) => {
            half_rows_of!(
                #[target_feature(enable = "avx2,fma,f16c")]
                $rows,
                $one
            );

            /// # Safety
            /// Both pointers are readable for `dim` values.
            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn $one(a: *const f32, b: *const u16, dim: usize) -> f32 {
                let step = |$sum: __m256, $a: __m256, $b: __m256| -> __m256 { $step };
                let mut sums = [_mm256_setzero_ps(); 4];
                let mut at = 0;
                while at + 32 <= dim {
                    for (lane, sum) in sums.iter_mut().enumerate() {
                        let at = at + 8 * lane;
                        // SAFETY: `at + 8 <= dim`, and the caller promises `dim` readable values.
                        let (a, b) = unsafe { (_mm256_loadu_ps(a.add(at)), _mm_loadu_si128(b.add(at).cast())) };
                        *sum = step(*sum, a, _mm256_cvtph_ps(b));
                    }
                    at += 32;
                }
                while at + 8 <= dim {
                    // SAFETY: `at + 8 <= dim`.
                    let (a, b) = unsafe { (_mm256_loadu_ps(a.add(at)), _mm_loadu_si128(b.add(at).cast())) };
                    sums[0] = step(sums[0], a, _mm256_cvtph_ps(b));
                    at += 8;
                }
                if at < dim {
                    let (mut a_rest, mut b_rest) = ([0.0f32; 8], [0u16; 8]);
                    // SAFETY: fewer than eight values are left, and they are copied into eight.
                    unsafe {
                        std::ptr::copy_nonoverlapping(a.add(at), a_rest.as_mut_ptr(), dim - at);
                        std::ptr::copy_nonoverlapping(b.add(at), b_rest.as_mut_ptr(), dim - at);
                    }
                    // SAFETY: the array holds eight values.
                    let a = unsafe { _mm256_loadu_ps(a_rest.as_ptr()) };
                    // SAFETY: as above.
                    let b = unsafe { _mm_loadu_si128(b_rest.as_ptr().cast()) };
                    sums[1] = step(sums[1], a, _mm256_cvtph_ps(b));
                }
                let [s0, s1, s2, s3] = sums;
                let eight = _mm256_add_ps(_mm256_add_ps(s0, s1), _mm256_add_ps(s2, s3));
                let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
            }
        };
    }

    kernel!(product_rows, product, |sum, a, b| _mm256_fmadd_ps(a, b, sum));
    kernel!(squared_difference_rows, squared_difference, |sum, a, b| {
        let difference = _mm256_sub_ps(a, b);
        _mm256_fmadd_ps(difference, difference, sum)
    });
    kernel!(absolute_difference_rows, absolute_difference, |sum, a, b| {
        _mm256_add_ps(sum, _mm256_andnot_ps(_mm256_set1_ps(-0.0), _mm256_sub_ps(a, b)))
    });
}
