//! Products of one vector of signed bytes with many, in whole numbers: a matrix of eight bits a value.
//!
//! Sixteen rows lie side by side, four values of each at a time, so that one cache line holds four dimensions of
//! sixteen rows and every lane of 32 bits adds up a row of its own: nothing is to be summed across lanes.

use super::Kernel;

/// Rows that lie side by side.
const SIDE: usize = 16;
/// Values of a row that lie together.
const FOUR: usize = 4;

/// A matrix of signed bytes.
pub(crate) struct ByteMatrix {
    lines: Vec<Line>,
    /// 128 times the negative sum of each row, for kernels that take the vector as unsigned bytes.
    biases: Vec<i32>,
    rows: usize,
    fours: usize,
    products: Products,
}

/// Four values of each of sixteen rows.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line([[i8; FOUR]; SIDE]);

/// The products of `vector` with sixteen rows of as many lines, which begin at `biases` where the kernel needs them.
///
/// # Safety
/// The processor has the instruction set.
type Products = unsafe fn(vector: &[[i8; FOUR]], lines: &[Line], biases: &[i32; SIDE]) -> [i32; SIDE];

impl ByteMatrix {
    /// A matrix of rows that are equally long.
    pub fn new<'a>(rows: impl ExactSizeIterator<Item = &'a [i8]>, columns: usize, kernel: Kernel) -> Self {
        let (count, fours) = (rows.len(), columns.div_ceil(FOUR));
        let mut lines = vec![Line([[0; FOUR]; SIDE]); count.div_ceil(SIDE) * fours];
        let mut biases = vec![0; count.next_multiple_of(SIDE)];
        for (at, row) in rows.enumerate() {
            assert_eq!(row.len(), columns, "row {at}");
            biases[at] = row.iter().map(|value| -128 * i32::from(*value)).sum();
            for (line, values) in lines[at / SIDE * fours..].iter_mut().zip(row.chunks(FOUR)) {
                line.0[at % SIDE][..values.len()].copy_from_slice(values);
            }
        }
        Self { lines, biases, rows: count, fours, products: products_of(kernel) }
    }

    /// The product of a vector with each row, into `out`, which is as long as there are rows. The vector comes in fours, the
    /// last of them filled up with anything.
    pub fn products(&self, vector: &[[i8; FOUR]], out: &mut [i32]) {
        assert!(vector.len() == self.fours && out.len() == self.rows);
        let blocks = self.lines.chunks_exact(self.fours.max(1)).zip(self.biases.as_chunks().0);
        for ((lines, biases), out) in blocks.zip(out.chunks_mut(SIDE)) {
            // SAFETY: the kernel was checked when it was chosen.
            let products = unsafe { (self.products)(vector, lines, biases) };
            out.copy_from_slice(&products[..out.len()]);
        }
    }

    /// One row.
    pub fn row(&self, row: usize) -> impl Iterator<Item = i8> + '_ {
        let lines = &self.lines[row / SIDE * self.fours..][..self.fours];
        lines.iter().flat_map(move |line| line.0[row % SIDE])
    }

    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.lines[..]) + size_of_val(&self.biases[..])
    }
}

fn products_of(kernel: Kernel) -> Products {
    match kernel {
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx512 if is_x86_feature_detected!("avx512vnni") => x86::products_avx512,
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx512 | Kernel::Avx2 if is_x86_feature_detected!("avx2") => x86::products_avx2,
        #[cfg(target_arch = "aarch64")]
        Kernel::Neon => neon::products,
        _ => products_scalar,
    }
}

/// Portable, and what the others are tested against.
///
/// # Safety
/// None is needed.
unsafe fn products_scalar(vector: &[[i8; FOUR]], lines: &[Line], _biases: &[i32; SIDE]) -> [i32; SIDE] {
    let mut sums = [0; SIDE];
    for (vector, line) in vector.iter().zip(lines) {
        for (sum, row) in sums.iter_mut().zip(&line.0) {
            *sum += row.iter().zip(vector).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum::<i32>();
        }
    }
    sums
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{FOUR, Line, SIDE};

    /// # Safety
    /// See [`super::Products`].
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub unsafe fn products_avx512(vector: &[[i8; FOUR]], lines: &[Line], biases: &[i32; SIDE]) -> [i32; SIDE] {
        // SAFETY: sixteen numbers of 32 bits are one register.
        let bias = unsafe { _mm512_loadu_si512(biases.as_ptr().cast()) };
        // Two sums, so that one addition need not wait for the other.
        let mut sums = [bias, _mm512_setzero_si512()];
        let ((vectors, last_vector), (pairs, last)) = (vector.as_chunks::<2>(), lines.as_chunks::<2>());
        let add = |sum: __m512i, vector: &[i8; FOUR], line: &Line| {
            // A signed byte with its highest bit turned is that byte and 128 more, which the bias takes off again.
            let four = _mm512_set1_epi32(i32::from_ne_bytes(vector.map(i8::cast_unsigned)) ^ TURN);
            // SAFETY: a line is 64 bytes, and aligned.
            let rows = unsafe { _mm512_load_si512(std::ptr::from_ref(line).cast()) };
            _mm512_dpbusd_epi32(sum, four, rows)
        };
        for (vectors, lines) in vectors.iter().zip(pairs) {
            for half in 0..2 {
                sums[half] = add(sums[half], &vectors[half], &lines[half]);
            }
        }
        for (vector, line) in last_vector.iter().zip(last) {
            sums[0] = add(sums[0], vector, line);
        }
        let mut out = [0; SIDE];
        // SAFETY: sixteen numbers of 32 bits are one register.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), _mm512_add_epi32(sums[0], sums[1])) };
        out
    }

    /// # Safety
    /// See [`super::Products`].
    #[target_feature(enable = "avx2")]
    pub unsafe fn products_avx2(vector: &[[i8; FOUR]], lines: &[Line], _biases: &[i32; SIDE]) -> [i32; SIDE] {
        let mut sums = [_mm256_setzero_si256(); 2];
        for (vector, line) in vector.iter().zip(lines) {
            let pair = |a: i8, b: i8| i32::from(a) & 0xffff | i32::from(b) << 16;
            let even = _mm256_set1_epi32(pair(vector[0], vector[2]));
            let odd = _mm256_set1_epi32(pair(vector[1], vector[3]));
            for (half, sum) in sums.iter_mut().enumerate() {
                // SAFETY: half a line is 32 bytes.
                let rows = unsafe { _mm256_load_si256(line.0[half * SIDE / 2..].as_ptr().cast()) };
                let evens = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(rows));
                let odds = _mm256_srai_epi16::<8>(rows);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(evens, even));
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(odds, odd));
            }
        }
        let mut out = [0; SIDE];
        for (sum, out) in sums.iter().zip(out.as_chunks_mut::<8>().0) {
            // SAFETY: eight numbers of 32 bits are one register.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), *sum) };
        }
        out
    }

    const TURN: i32 = i32::from_ne_bytes([0x80; 4]);
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;

    use super::{FOUR, Line, SIDE};

    /// # Safety
    /// See [`super::Products`].
    #[target_feature(enable = "neon")]
    pub unsafe fn products(vector: &[[i8; FOUR]], lines: &[Line], _biases: &[i32; SIDE]) -> [i32; SIDE] {
        // Two lanes for each row until the end.
        let mut sums = [[vdupq_n_s32(0); 2]; FOUR];
        for (vector, line) in vector.iter().zip(lines) {
            let four = vreinterpret_s8_s32(vdup_n_s32(i32::from_ne_bytes(vector.map(i8::cast_unsigned))));
            for (sums, rows) in sums.iter_mut().zip(line.0.as_chunks::<FOUR>().0) {
                // SAFETY: four rows of four bytes are one register.
                let rows = unsafe { vld1q_s8(rows.as_ptr().cast()) };
                sums[0] = vpadalq_s16(sums[0], vmull_s8(vget_low_s8(rows), four));
                sums[1] = vpadalq_s16(sums[1], vmull_s8(vget_high_s8(rows), four));
            }
        }
        let mut out = [0; SIDE];
        for ([low, high], out) in sums.iter().zip(out.as_chunks_mut::<FOUR>().0) {
            // SAFETY: four numbers of 32 bits are one register.
            unsafe { vst1q_s32(out.as_mut_ptr(), vpaddq_s32(*low, *high)) };
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_gives_the_products_of_any_length_and_number() {
        let mut random = fastrand::Rng::with_seed(81);
        for (rows, columns) in (1..=200).map(|columns| (1 + columns % 37, columns)).chain([
            (96, 384),
            (33, 768),
            (16, 784),
            (17, 960),
            (5, 1536),
            (20, 3072),
        ]) {
            let (rows, columns): (usize, usize) = (rows, columns);
            let extreme = columns.is_multiple_of(5);
            let mut value = || if extreme { [-127, 127][random.usize(..2)] } else { random.i8(-127..=127) };
            let matrix: Vec<Vec<i8>> = (0..rows).map(|_| (0..columns).map(|_| value()).collect()).collect();
            let vector: Vec<i8> = (0..columns).map(|_| value()).collect();
            let expected: Vec<i32> = matrix
                .iter()
                .map(|row| row.iter().zip(&vector).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum())
                .collect();
            let mut fours = vec![[7; FOUR]; columns.div_ceil(FOUR)];
            fours.as_flattened_mut()[..columns].copy_from_slice(&vector);
            for kernel in Kernel::available() {
                let bytes = ByteMatrix::new(matrix.iter().map(Vec::as_slice), columns, kernel);
                let mut out = vec![0; rows];
                bytes.products(&fours, &mut out);
                assert_eq!(out, expected, "{kernel:?} {rows} x {columns}");
                assert!((0..rows).all(|row| bytes.row(row).take(columns).eq(matrix[row].iter().copied())));
            }
        }
    }
}
