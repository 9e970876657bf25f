//! Codes of four bits a dimension against a query of eight: one cache line of codes is 128 dimensions, byte `j` of it
//! holding dimension `j` in its low half and dimension `j + 64` in its high half.

use super::Kernel;

/// Dimensions of a line of codes.
pub(crate) const LINE_DIMS: usize = 128;
/// Bytes of a line of codes.
pub(crate) const LINE_BYTES: usize = 64;

/// A query, and how distances are made of sums: `base + product * sum(q u) + square * sum(u (u - 15))` over the codes `u`.
#[derive(Clone, Debug, Default)]
pub(crate) struct NibbleQuery {
    lines: Vec<QueryLine>,
    pub product: f32,
    pub square: f32,
    pub base: f32,
}

/// The query's values beside one line of codes, in the order of its low and its high halves.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct QueryLine([i8; LINE_DIMS]);

/// Distances of rows of codes, into `out`, which is as long as `rows`.
///
/// # Safety
/// Each row is readable for 64 bytes for each line of the query, and the processor has the instruction set. Rows may be
/// written meanwhile: whatever is read of them gives some number.
pub(crate) type Nibbles = unsafe fn(query: &NibbleQuery, rows: &[*const u8], out: &mut [f32]);

/// The function of a kernel. Only a kernel that is available may be asked.
pub(crate) fn nibbles_of(kernel: Kernel) -> Nibbles {
    match kernel {
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx512 if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vnni") => {
            x86::nibbles_avx512
        }
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx512 | Kernel::Avx2 if is_x86_feature_detected!("avx2") => x86::nibbles_avx2,
        #[cfg(target_arch = "aarch64")]
        Kernel::Neon => neon::nibbles,
        _ => nibbles_scalar,
    }
}

impl NibbleQuery {
    /// Rounds these values to eight bits; gives what one step of them stands for, and their sum in steps.
    pub fn set(&mut self, values: &[f32]) -> (f32, i32) {
        let largest = values.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
        let inverse = 127.0 / largest;
        self.lines.clear();
        let mut sum = 0;
        for values in values.chunks(LINE_DIMS) {
            let mut line = QueryLine([0; LINE_DIMS]);
            for (to, value) in line.0.iter_mut().zip(values) {
                let scaled = value * inverse;
                *to = (scaled + f32::copysign(0.5, scaled)) as i8;
                sum += i32::from(*to);
            }
            self.lines.push(line);
        }
        (largest / 127.0, sum)
    }

    /// Bytes that may be read like a row of codes, and mean nothing as one.
    #[inline(always)]
    pub fn as_ptr(&self) -> *const u8 {
        const { assert!(size_of::<QueryLine>() >= LINE_BYTES) };
        self.lines.as_ptr().cast()
    }

    /// Bytes of a row of codes.
    #[inline(always)]
    pub fn row_bytes(&self) -> usize {
        self.lines.len() * LINE_BYTES
    }

    #[inline(always)]
    fn distance(&self, product: i32, square: i32) -> f32 {
        self.base + self.product * product as f32 + self.square * square as f32
    }
}

/// Portable, and what the others are tested against.
///
/// # Safety
/// See [`Nibbles`].
unsafe fn nibbles_scalar(query: &NibbleQuery, rows: &[*const u8], out: &mut [f32]) {
    for (row, out) in rows.iter().zip(out) {
        let (mut product, mut square) = (0i32, 0i32);
        for (at, line) in query.lines.iter().enumerate() {
            for byte in 0..LINE_BYTES {
                // SAFETY: the caller promises 64 bytes for each line.
                let codes = unsafe { *row.add(at * LINE_BYTES + byte) };
                for (code, value) in [(codes & 15, line.0[byte]), (codes >> 4, line.0[byte + LINE_BYTES])] {
                    product += i32::from(code) * i32::from(value);
                    square += i32::from(code) * (i32::from(code) - 15);
                }
            }
        }
        *out = query.distance(product, square);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{LINE_BYTES, NibbleQuery};

    /// # Safety
    /// See [`super::Nibbles`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub unsafe fn nibbles_avx512(query: &NibbleQuery, rows: &[*const u8], out: &mut [f32]) {
        let (mask, fifteen) = (_mm512_set1_epi8(15), _mm512_set1_epi8(15));
        for (row, out) in rows.iter().zip(out) {
            let mut products = [_mm512_setzero_si512(); 2];
            let mut squares = [_mm512_setzero_si512(); 2];
            for (at, line) in query.lines.iter().enumerate() {
                // SAFETY: the caller promises 64 bytes for each line.
                let codes = unsafe { _mm512_loadu_si512(row.add(at * LINE_BYTES).cast()) };
                let halves = [_mm512_and_si512(codes, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(codes), mask)];
                for half in 0..2 {
                    // SAFETY: a line of the query is twice 64 bytes, on a boundary of 64.
                    let values = unsafe { _mm512_load_si512(line.0.as_ptr().add(half * LINE_BYTES).cast()) };
                    products[half] = _mm512_dpbusd_epi32(products[half], halves[half], values);
                    let less = _mm512_sub_epi8(halves[half], fifteen);
                    squares[half] = _mm512_dpbusd_epi32(squares[half], halves[half], less);
                }
            }
            let product = _mm512_reduce_add_epi32(_mm512_add_epi32(products[0], products[1]));
            let square = _mm512_reduce_add_epi32(_mm512_add_epi32(squares[0], squares[1]));
            *out = query.distance(product, square);
        }
    }

    /// # Safety
    /// See [`super::Nibbles`].
    #[target_feature(enable = "avx2")]
    pub unsafe fn nibbles_avx2(query: &NibbleQuery, rows: &[*const u8], out: &mut [f32]) {
        let (mask, fifteen, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi8(15), _mm256_set1_epi16(1));
        let total = |sums: __m256i| {
            let four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
            let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b1110>(four));
            _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<1>(two)))
        };
        for (row, out) in rows.iter().zip(out) {
            let (mut products, mut squares) = (_mm256_setzero_si256(), _mm256_setzero_si256());
            for (at, line) in query.lines.iter().enumerate() {
                for part in [0, LINE_BYTES / 2] {
                    // SAFETY: the caller promises 64 bytes for each line; a part is 32.
                    let codes = unsafe { _mm256_loadu_si256(row.add(at * LINE_BYTES + part).cast()) };
                    let halves = [_mm256_and_si256(codes, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(codes), mask)];
                    for (half, codes) in halves.into_iter().enumerate() {
                        // SAFETY: a line of the query is twice 64 bytes.
                        let values =
                            unsafe { _mm256_loadu_si256(line.0.as_ptr().add(half * LINE_BYTES + part).cast()) };
                        // Pairs of at most 15 times 128: far from where they would saturate.
                        let pairs = _mm256_maddubs_epi16(codes, values);
                        products = _mm256_add_epi32(products, _mm256_madd_epi16(pairs, ones));
                        let pairs = _mm256_maddubs_epi16(codes, _mm256_sub_epi8(codes, fifteen));
                        squares = _mm256_add_epi32(squares, _mm256_madd_epi16(pairs, ones));
                    }
                }
            }
            *out = query.distance(total(products), total(squares));
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;

    use super::{LINE_BYTES, NibbleQuery};

    /// # Safety
    /// See [`super::Nibbles`].
    #[target_feature(enable = "neon")]
    pub unsafe fn nibbles(query: &NibbleQuery, rows: &[*const u8], out: &mut [f32]) {
        for (row, out) in rows.iter().zip(out) {
            let (mut products, mut squares) = (vdupq_n_s32(0), vdupq_n_s32(0));
            for (at, line) in query.lines.iter().enumerate() {
                for part in (0..LINE_BYTES).step_by(16) {
                    // SAFETY: the caller promises 64 bytes for each line; a part is 16.
                    let codes = unsafe { vld1q_u8(row.add(at * LINE_BYTES + part)) };
                    let halves = [vandq_u8(codes, vdupq_n_u8(15)), vshrq_n_u8::<4>(codes)];
                    for (half, codes) in halves.into_iter().enumerate() {
                        // SAFETY: a line of the query is twice 64 bytes.
                        let values = unsafe { vld1q_s8(line.0.as_ptr().add(half * LINE_BYTES + part)) };
                        let codes = vreinterpretq_s8_u8(codes);
                        let product = vmull_s8(vget_low_s8(codes), vget_low_s8(values));
                        products = vpadalq_s16(products, vmlal_high_s8(product, codes, values));
                        let less = vsubq_s8(codes, vdupq_n_s8(15));
                        let square = vmull_s8(vget_low_s8(codes), vget_low_s8(less));
                        squares = vpadalq_s16(squares, vmlal_high_s8(square, codes, less));
                    }
                }
            }
            *out = query.distance(vaddvq_s32(products), vaddvq_s32(squares));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distances(kernel: Kernel, query: &NibbleQuery, rows: &[Vec<u8>]) -> Vec<f32> {
        assert!(kernel.is_available() && rows.iter().all(|row| row.len() == query.row_bytes()));
        let pointers: Vec<*const u8> = rows.iter().map(|row| row.as_ptr()).collect();
        let mut out = vec![f32::NAN; rows.len()];
        // SAFETY: every row has 64 bytes for each line, and the kernel is available.
        unsafe { nibbles_of(kernel)(query, &pointers, &mut out) };
        out
    }

    #[test]
    fn every_kernel_measures_what_the_scalar_one_measures() {
        let mut random = fastrand::Rng::with_seed(81);
        for dims in (1..=200).chain([384, 768, 784, 960, 1536, 3072]) {
            let mut query = NibbleQuery { product: 1.0, square: 3.0, base: 0.5, ..NibbleQuery::default() };
            query.set(&(0..dims).map(|_| random.f32() - 0.5).collect::<Vec<_>>());
            let mut row = || (0..query.row_bytes()).map(|_| random.u8(..)).collect();
            let rows: Vec<Vec<u8>> = vec![row(), row(), row()];
            let expected = distances(Kernel::Scalar, &query, &rows);
            for kernel in Kernel::available() {
                assert_eq!(distances(kernel, &query, &rows), expected, "{kernel:?} {dims}");
            }
        }
    }

    #[test]
    fn known_codes_give_known_sums() {
        let mut query = NibbleQuery { product: 1.0, square: 0.0, base: 0.0, ..NibbleQuery::default() };
        let mut values = vec![0.0; 130];
        (values[1], values[65], values[129]) = (127.0, -64.0, 1.0);
        assert_eq!(query.set(&values), (1.0, 64));
        let mut row = vec![0u8; 128];
        (row[1], row[64 + 1]) = (3 | 5 << 4, 7);
        for kernel in Kernel::available() {
            assert_eq!(distances(kernel, &query, &[row.clone()]), [3.0 * 127.0 - 5.0 * 64.0 + 7.0], "{kernel:?}");
            let squares = NibbleQuery { product: 0.0, square: 1.0, ..query.clone() };
            assert_eq!(distances(kernel, &squares, &[row.clone()]), [-36.0 - 50.0 - 56.0], "{kernel:?}");
        }
    }
}
