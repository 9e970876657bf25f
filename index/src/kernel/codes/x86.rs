//! x86-64 kernels. Four codes are measured side by side, so that the weights are read once for four and their sums are
//! added up together.

/// AVX-512 with VNNI: 64 bytes of a code at a time.
pub(crate) mod avx512 {
    use std::arch::x86_64::*;

    macro_rules! measure {
        ($name:ident, |$byte:ident| ($squares_a:expr, $squares_b:expr), ($first:expr, $second:expr), $both:literal) => {
            /// See [`MeasureCodes`](crate::kernel::codes::MeasureCodes).
            #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
            pub(crate) unsafe fn $name(
                weights: *const i8,
                scales: [f32; 2],
                bytes: usize,
                codes: &[*const u8],
                out: &mut [f32],
            ) {
                for (codes, out) in codes.chunks(4).zip(out.chunks_mut(4)) {
                    // The places of missing codes are taken by the last one, and what comes of them is dropped.
                    let fours: [*const u8; 4] = std::array::from_fn(|at| codes[at.min(codes.len() - 1)]);
                    let mut sums = [[_mm512_setzero_si512(); 3]; 4];
                    let mut at = 0;
                    while at < bytes {
                        let mask = u64::MAX >> 64usize.saturating_sub(bytes - at);
                        // SAFETY: the mask keeps the loads within `bytes` of each half of the weights.
                        let (first, second) = unsafe {
                            (
                                _mm512_maskz_loadu_epi8(mask, weights.wrapping_add(at)),
                                _mm512_maskz_loadu_epi8(mask, weights.wrapping_add(bytes + at)),
                            )
                        };
                        for (code, sums) in fours.iter().zip(&mut sums) {
                            // SAFETY: the mask keeps the load within `bytes` of the code.
                            let $byte = unsafe { _mm512_maskz_loadu_epi8(mask, code.wrapping_add(at).cast()) };
                            sums[0] = _mm512_dpbusd_epi32(sums[0], $squares_a, $squares_b);
                            if $both {
                                sums[0] = _mm512_dpbusd_epi32(sums[0], $second, $second);
                            }
                            sums[1] = _mm512_dpbusd_epi32(sums[1], $first, first);
                            sums[2] = _mm512_dpbusd_epi32(sums[2], $second, second);
                        }
                        at += 64;
                    }
                    let scales = scales.map(|scale| _mm512_set1_ps(scale));
                    let totals = sums.map(|[squares, first, second]| {
                        let sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(first), scales[0], _mm512_cvtepi32_ps(squares));
                        _mm512_fmadd_ps(_mm512_cvtepi32_ps(second), scales[1], sum)
                    });
                    store(sum_of_each(totals), out);
                }
            }
        };
    }

    measure!(measure_four, |byte| (low(byte), low(byte)), (low(byte), high(byte)), true);
    measure!(measure_eight, |byte| (byte, _mm512_xor_si512(byte, _mm512_set1_epi8(-128))), (byte, byte), false);
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn low(bytes: __m512i) -> __m512i {
        _mm512_and_si512(bytes, _mm512_set1_epi8(15))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn high(bytes: __m512i) -> __m512i {
        _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), _mm512_set1_epi8(15))
    }

    /// The sum over the lanes of each of four, side by side.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn sum_of_each([a, b, c, d]: [__m512; 4]) -> __m128 {
        let ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        let cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
        let (ab, cd) = (_mm512_castps_pd(ab), _mm512_castps_pd(cd));
        let (even, odd) = (_mm512_unpacklo_pd(ab, cd), _mm512_unpackhi_pd(ab, cd));
        let each = _mm512_add_ps(_mm512_castpd_ps(even), _mm512_castpd_ps(odd));
        let upper = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(each)));
        let eight = _mm256_add_ps(_mm512_castps512_ps256(each), upper);
        _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn store(each: __m128, out: &mut [f32]) {
        let mut values = [0.0; 4];
        // SAFETY: the array holds four values.
        unsafe { _mm_storeu_ps(values.as_mut_ptr(), each) };
        out.copy_from_slice(&values[..out.len()]);
    }
}

/// AVX2: 32 bytes of a code at a time.
pub(crate) mod avx2 {
    use std::arch::x86_64::*;

    macro_rules! measure {
        ($name:ident, |$sums:ident, $byte:ident, $first:ident, $second:ident| $step:expr) => {
            /// See [`MeasureCodes`](crate::kernel::codes::MeasureCodes).
            #[target_feature(enable = "avx2,fma")]
            pub(crate) unsafe fn $name(
                weights: *const i8,
                scales: [f32; 2],
                bytes: usize,
                codes: &[*const u8],
                out: &mut [f32],
            ) {
                for (codes, out) in codes.chunks(2).zip(out.chunks_mut(2)) {
                    let twos: [*const u8; 2] = std::array::from_fn(|at| codes[at.min(codes.len() - 1)]);
                    let mut sums = [[_mm256_setzero_si256(); 3]; 2];
                    let mut at = 0;
                    while at < bytes {
                        let left = bytes - at;
                        // SAFETY: the load reads within `bytes` of the first half of the weights.
                        let $first = unsafe { load(weights.add(at).cast(), left) };
                        // SAFETY: as above, of the second half.
                        let $second = unsafe { load(weights.add(bytes + at).cast(), left) };
                        for (code, $sums) in twos.iter().zip(&mut sums) {
                            // SAFETY: the load reads within `bytes` of the code.
                            let $byte = unsafe { load(code.add(at), left) };
                            $step;
                        }
                        at += 32;
                    }
                    let scales = scales.map(|scale| _mm256_set1_ps(scale));
                    for ([squares, first, second], out) in sums.iter().zip(out) {
                        let sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(*first), scales[0], _mm256_cvtepi32_ps(*squares));
                        let eight = _mm256_fmadd_ps(_mm256_cvtepi32_ps(*second), scales[1], sum);
                        let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
                        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                        *out = _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)));
                    }
                }
            }
        };
    }

    measure!(measure_four, |sums, byte, first, second| {
        // A product of two bytes is at most 15 * 128 here, so that a sum of two stays within 16 bits.
        let (low, high) = (low(byte), high(byte));
        let squares = _mm256_add_epi16(_mm256_maddubs_epi16(low, low), _mm256_maddubs_epi16(high, high));
        sums[0] = _mm256_add_epi32(sums[0], pairs(squares));
        sums[1] = _mm256_add_epi32(sums[1], pairs(_mm256_maddubs_epi16(low, first)));
        sums[2] = _mm256_add_epi32(sums[2], pairs(_mm256_maddubs_epi16(high, second)));
    });
    measure!(measure_eight, |sums, byte, first, second| {
        for (byte, first, second) in [
            (lower(byte), lower_signed(first), lower_signed(second)),
            (upper(byte), upper_signed(first), upper_signed(second)),
        ] {
            let centred = _mm256_sub_epi16(byte, _mm256_set1_epi16(128));
            sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(byte, centred));
            sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(byte, first));
            sums[2] = _mm256_add_epi32(sums[2], _mm256_madd_epi16(byte, second));
        }
    });
    /// Up to 32 bytes; zeros where fewer are left.
    ///
    /// # Safety
    /// `from` is readable for 32 bytes, or for `left` where that is less.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn load(from: *const u8, left: usize) -> __m256i {
        if left >= 32 {
            // SAFETY: 32 bytes are readable.
            return unsafe { _mm256_loadu_si256(from.cast()) };
        }
        let mut bytes = [0u8; 32];
        // SAFETY: `left` bytes are readable, and fewer than the array holds.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), left) };
        // SAFETY: the array holds 32 bytes.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn low(bytes: __m256i) -> __m256i {
        _mm256_and_si256(bytes, _mm256_set1_epi8(15))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn high(bytes: __m256i) -> __m256i {
        _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), _mm256_set1_epi8(15))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn pairs(words: __m256i) -> __m256i {
        _mm256_madd_epi16(words, _mm256_set1_epi16(1))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn lower(bytes: __m256i) -> __m256i {
        _mm256_cvtepu8_epi16(_mm256_castsi256_si128(bytes))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn upper(bytes: __m256i) -> __m256i {
        _mm256_cvtepu8_epi16(_mm256_extracti128_si256::<1>(bytes))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn lower_signed(bytes: __m256i) -> __m256i {
        _mm256_cvtepi8_epi16(_mm256_castsi256_si128(bytes))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn upper_signed(bytes: __m256i) -> __m256i {
        _mm256_cvtepi8_epi16(_mm256_extracti128_si256::<1>(bytes))
    }
}
