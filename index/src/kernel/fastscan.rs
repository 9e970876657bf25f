//! FastScan (André, Kermarrec, Le Scouarnec 2015; as RaBitQ and SymphonyQG use it): the sums of signs of 32
//! neighbours at once, by looking each four of their bits up in a table of the query's that fits one register.
//!
//! Codes of 32 lanes lie in groups of four dimensions, 16 bytes a group: byte `j` holds the four bits of lane `j` in
//! its low half and those of lane `j + 16` in its high half. The table has 16 bytes a group. Groups come in fours, one
//! cache line of codes.

use super::Kernel;

/// Lanes that one scan measures.
pub(crate) const LANES: usize = 32;
/// Dimensions of a group.
pub(crate) const GROUP_DIMS: usize = 4;
/// Bytes of a group, of codes and of table alike.
pub(crate) const GROUP_BYTES: usize = 16;
/// Groups of codes that come together.
pub(crate) const GROUPS_STEP: usize = 4;
/// Most groups: above it a lane's sum of bytes could overflow its 16 bits.
pub(crate) const GROUPS_MAX: usize = 256;

/// A query's table: for each group, and each pattern of signs, the signed sum of four of the query's values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    lines: Vec<Line>,
    groups: usize,
    /// A sum of looked-up bytes stands for `step` times that plus `base`.
    step: f32,
    base: f32,
}

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line([u8; GROUPS_STEP * GROUP_BYTES]);

/// What one scan reads, and what it makes of each lane's sum of bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    /// [`GROUP_BYTES`] for each group.
    pub codes: *const u8,
    /// [`LANES`] summands, then as many factors, as the upper halves of f32s.
    pub factors: *const u16,
    /// [`GROUP_BYTES`] for each group, on a cache-line boundary.
    pub table: *const u8,
    /// A multiple of [`GROUPS_STEP`], at most [`GROUPS_MAX`].
    pub groups: usize,
    /// An estimate is `offset + summand + factor * (step * sum + base)`.
    pub offset: f32,
    /// See `offset`.
    pub step: f32,
    /// See `offset`.
    pub base: f32,
    /// Estimates below it are wanted.
    pub bound: f32,
}

/// Estimates for each lane; a bit for each that is below the bound.
///
/// # Safety
/// The pointers of the job are readable for what it says they point to, and the processor has the instruction set. Codes
/// and factors may be written meanwhile: whatever is read of them gives some number.
pub(crate) type Scan = unsafe fn(job: &Job, estimates: &mut [f32; LANES]) -> u32;

/// The scan of a kernel. Only a kernel that is available may be asked.
pub(crate) fn scan_of(kernel: Kernel) -> Scan {
    match kernel {
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx512 if is_x86_feature_detected!("avx512bw") => x86::scan_avx512,
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx512 | Kernel::Avx2 if is_x86_feature_detected!("avx2") => x86::scan_avx2,
        #[cfg(target_arch = "aarch64")]
        Kernel::Neon => neon::scan,
        _ => scan_scalar,
    }
}

impl Table {
    /// Makes the table of these values, whose number is a multiple of 16.
    pub fn set(&mut self, values: &[f32]) {
        let (fours, rest) = values.as_chunks::<GROUP_DIMS>();
        assert!(rest.is_empty() && fours.len().is_multiple_of(GROUPS_STEP) && fours.len() <= GROUPS_MAX);
        self.groups = fours.len();
        self.lines.clear();
        self.lines.resize(fours.len() / GROUPS_STEP, Line([0; GROUPS_STEP * GROUP_BYTES]));
        let size = |four: &[f32; GROUP_DIMS]| four.iter().map(|value| value.abs()).sum::<f32>();
        let (mut largest, mut total) = (f32::MIN_POSITIVE, 0.0f32);
        for four in fours {
            largest = largest.max(size(four));
            total += size(four);
        }
        self.step = 2.0 * largest / 255.0;
        self.base = -total;
        let inverse = 1.0 / self.step;
        for (line, fours) in self.lines.iter_mut().zip(fours.chunks(GROUPS_STEP)) {
            for (bytes, four) in line.0.as_chunks_mut::<GROUP_BYTES>().0.iter_mut().zip(fours) {
                // A set bit is a plus: start from all minus, and add twice what is set.
                let scaled = four.map(|value| value * inverse);
                let least = scaled.iter().map(|value| value.abs()).sum::<f32>() - scaled.iter().sum::<f32>() + 0.5;
                let mut sums = [least; GROUP_BYTES];
                for (bit, value) in scaled.iter().enumerate() {
                    for (pattern, sum) in sums.iter_mut().enumerate() {
                        *sum += 2.0 * value * ((pattern >> bit) & 1) as f32;
                    }
                }
                *bytes = sums.map(|sum| sum as u8);
            }
        }
    }

    /// The job of scanning these codes with these factors.
    ///
    /// `codes` must be readable for [`Self::code_bytes`], `factors` for two of 16 bits a lane, while the job is done.
    #[inline(always)]
    pub fn job(&self, codes: *const u8, factors: *const u16, offset: f32, bound: f32) -> Job {
        let (table, groups) = (self.lines.as_ptr().cast(), self.groups);
        Job { codes, factors, table, groups, offset, step: self.step, base: self.base, bound }
    }

    /// Bytes of codes that go with the table.
    pub fn code_bytes(&self) -> usize {
        self.groups * GROUP_BYTES
    }
}

/// Makes estimates of sums.
///
/// # Safety
/// See [`Scan`].
#[inline(always)]
unsafe fn finish(job: &Job, sums: &[u16; LANES], estimates: &mut [f32; LANES]) -> u32 {
    // SAFETY: the caller promises 32 summands and 32 factors.
    let (summands, factors) = unsafe {
        (
            job.factors.cast::<[u16; LANES]>().read_unaligned(),
            job.factors.add(LANES).cast::<[u16; LANES]>().read_unaligned(),
        )
    };
    let float = |half: u16| f32::from_bits(u32::from(half) << 16);
    for lane in 0..LANES {
        let sum = f32::from(sums[lane]) * job.step + job.base;
        estimates[lane] = float(factors[lane]) * sum + (float(summands[lane]) + job.offset);
    }
    let mut wanted = 0;
    for (lane, estimate) in estimates.iter().enumerate() {
        wanted |= u32::from(*estimate < job.bound) << lane;
    }
    wanted
}

/// Portable, and what the others are tested against.
///
/// # Safety
/// See [`Scan`].
unsafe fn scan_scalar(job: &Job, estimates: &mut [f32; LANES]) -> u32 {
    let Job { codes, table, groups, .. } = *job;
    let mut sums = [0u16; LANES];
    for group in 0..groups {
        for lane in 0..LANES / 2 {
            // SAFETY: within the 16 bytes of a group, of which there are `groups` on both sides.
            let byte = unsafe { *codes.add(group * GROUP_BYTES + lane) };
            let look = |four: u8| {
                // SAFETY: as above; `four` is below 16.
                u16::from(unsafe { *table.add(group * GROUP_BYTES + usize::from(four)) })
            };
            sums[lane] += look(byte & 15);
            sums[lane + LANES / 2] += look(byte >> 4);
        }
    }
    // SAFETY: passed on to the caller.
    unsafe { finish(job, &sums, estimates) }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{GROUP_BYTES, GROUPS_STEP, Job, LANES, finish};

    /// # Safety
    /// See [`super::Scan`].
    #[target_feature(enable = "avx512f,avx512bw")]
    pub unsafe fn scan_avx512(job: &Job, estimates: &mut [f32; LANES]) -> u32 {
        let Job { codes, table, groups, .. } = *job;
        let mut sums = [0u16; LANES];
        let mask = _mm512_set1_epi8(15);
        // Bytes are added two at a time as 16-bit numbers, and the high ones once more by themselves.
        let mut both = [_mm512_setzero_si512(); 2];
        let mut high = [_mm512_setzero_si512(); 2];
        for at in (0..groups * GROUP_BYTES).step_by(GROUPS_STEP * GROUP_BYTES) {
            // SAFETY: groups are a multiple of four, and 64 bytes are four groups.
            let (code, table) =
                unsafe { (_mm512_loadu_si512(codes.add(at).cast()), _mm512_load_si512(table.add(at).cast())) };
            let fours = [_mm512_and_si512(code, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(code), mask)];
            for half in 0..2 {
                let bytes = _mm512_shuffle_epi8(table, fours[half]);
                both[half] = _mm512_add_epi16(both[half], bytes);
                high[half] = _mm512_add_epi16(high[half], _mm512_srli_epi16::<8>(bytes));
            }
        }
        let fold = |sums: __m512i| {
            let halves = _mm256_add_epi16(_mm512_castsi512_si256(sums), _mm512_extracti64x4_epi64::<1>(sums));
            _mm_add_epi16(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves))
        };
        for half in 0..2 {
            let high = fold(high[half]);
            let low = _mm_sub_epi16(fold(both[half]), _mm_slli_epi16::<8>(high));
            let to = sums[half * LANES / 2..].as_mut_ptr();
            // SAFETY: each half of the sums is 16 of 16 bits.
            unsafe {
                _mm_storeu_si128(to.cast(), _mm_unpacklo_epi16(low, high));
                _mm_storeu_si128(to.add(8).cast(), _mm_unpackhi_epi16(low, high));
            }
        }
        // SAFETY: passed on to the caller.
        unsafe { finish(job, &sums, estimates) }
    }

    /// # Safety
    /// See [`super::Scan`].
    #[target_feature(enable = "avx2")]
    pub unsafe fn scan_avx2(job: &Job, estimates: &mut [f32; LANES]) -> u32 {
        let Job { codes, table, groups, .. } = *job;
        let mut sums = [0u16; LANES];
        let mask = _mm256_set1_epi8(15);
        let mut both = [_mm256_setzero_si256(); 2];
        let mut high = [_mm256_setzero_si256(); 2];
        for at in (0..groups * GROUP_BYTES).step_by(2 * GROUP_BYTES) {
            // SAFETY: groups are even, and 32 bytes are two groups.
            let (code, table) =
                unsafe { (_mm256_loadu_si256(codes.add(at).cast()), _mm256_loadu_si256(table.add(at).cast())) };
            let fours = [_mm256_and_si256(code, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(code), mask)];
            for half in 0..2 {
                let bytes = _mm256_shuffle_epi8(table, fours[half]);
                both[half] = _mm256_add_epi16(both[half], bytes);
                high[half] = _mm256_add_epi16(high[half], _mm256_srli_epi16::<8>(bytes));
            }
        }
        let fold = |sums: __m256i| _mm_add_epi16(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
        for half in 0..2 {
            let high = fold(high[half]);
            let low = _mm_sub_epi16(fold(both[half]), _mm_slli_epi16::<8>(high));
            let to = sums[half * LANES / 2..].as_mut_ptr();
            // SAFETY: each half of the sums is 16 of 16 bits.
            unsafe {
                _mm_storeu_si128(to.cast(), _mm_unpacklo_epi16(low, high));
                _mm_storeu_si128(to.add(8).cast(), _mm_unpackhi_epi16(low, high));
            }
        }
        // SAFETY: passed on to the caller.
        unsafe { finish(job, &sums, estimates) }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;

    use super::{GROUP_BYTES, Job, LANES, finish};

    /// # Safety
    /// See [`super::Scan`].
    #[target_feature(enable = "neon")]
    pub unsafe fn scan(job: &Job, estimates: &mut [f32; LANES]) -> u32 {
        let Job { codes, table, groups, .. } = *job;
        let mut sums = [0u16; LANES];
        let mut parts = [vdupq_n_u16(0); 4];
        for at in (0..groups * GROUP_BYTES).step_by(GROUP_BYTES) {
            // SAFETY: 16 bytes are one group.
            let (code, table) = unsafe { (vld1q_u8(codes.add(at)), vld1q_u8(table.add(at))) };
            let low = vqtbl1q_u8(table, vandq_u8(code, vdupq_n_u8(15)));
            let high = vqtbl1q_u8(table, vshrq_n_u8::<4>(code));
            parts[0] = vaddw_u8(parts[0], vget_low_u8(low));
            parts[1] = vaddw_high_u8(parts[1], low);
            parts[2] = vaddw_u8(parts[2], vget_low_u8(high));
            parts[3] = vaddw_high_u8(parts[3], high);
        }
        for (at, part) in parts.into_iter().enumerate() {
            // SAFETY: four parts of eight are the 32 sums.
            unsafe { vst1q_u16(sums.as_mut_ptr().add(8 * at), part) };
        }
        // SAFETY: passed on to the caller.
        unsafe { finish(job, &sums, estimates) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sums of bytes: estimates with nothing added and factors of one.
    fn scanned(kernel: Kernel, table: &Table, codes: &[u8]) -> [f32; LANES] {
        assert!(kernel.is_available() && codes.len() == table.code_bytes());
        let mut factors = [0u16; 2 * LANES];
        factors[LANES..].fill(0x3f80);
        let job = Job { step: 1.0, base: 0.0, ..table.job(codes.as_ptr(), factors.as_ptr(), 0.0, 3000.5) };
        let mut sums = [f32::NAN; LANES];
        // SAFETY: there are 16 bytes for each group and 64 factors, and the kernel is available.
        let wanted = unsafe { scan_of(kernel)(&job, &mut sums) };
        for (lane, sum) in sums.iter().enumerate() {
            assert_eq!(wanted >> lane & 1 == 1, *sum < 3000.5, "{kernel:?} lane {lane}");
        }
        sums
    }

    #[test]
    fn every_kernel_sums_what_the_scalar_one_sums() {
        let mut random = fastrand::Rng::with_seed(71);
        for dims in (16..=1024).step_by(16) {
            let values: Vec<f32> = (0..dims).map(|_| random.f32() - 0.5).collect();
            let mut table = Table::default();
            table.set(&values);
            let codes: Vec<u8> = (0..dims / GROUP_DIMS * GROUP_BYTES).map(|_| random.u8(..)).collect();
            let expected = scanned(Kernel::Scalar, &table, &codes);
            for kernel in Kernel::available() {
                assert_eq!(scanned(kernel, &table, &codes), expected, "{kernel:?} {dims}");
            }
        }
    }

    #[test]
    fn the_largest_sums_do_not_overflow() {
        let mut table = Table::default();
        table.set(&[1.0; GROUPS_MAX * GROUP_DIMS]);
        for kernel in Kernel::available() {
            let sums = scanned(kernel, &table, &[0xff; GROUPS_MAX * GROUP_BYTES]);
            assert_eq!(sums, [255.0 * GROUPS_MAX as f32; LANES], "{kernel:?}");
        }
    }

    #[test]
    fn a_sum_of_bytes_stands_for_the_signed_sum_of_values() {
        let mut random = fastrand::Rng::with_seed(72);
        for dims in [16, 112, 192, 256] {
            let values: Vec<f32> = (0..dims).map(|_| random.f32() * 6.0 - 3.0).collect();
            let mut table = Table::default();
            table.set(&values);
            let mut codes = vec![0u8; dims / GROUP_DIMS * GROUP_BYTES];
            let mut expected = [0.0f32; LANES];
            for (dim, value) in values.iter().enumerate() {
                for (lane, sum) in expected.iter_mut().enumerate() {
                    let is_plus = random.bool();
                    *sum += if is_plus { *value } else { -*value };
                    let bit = dim % GROUP_DIMS + 4 * (lane / 16);
                    codes[dim / GROUP_DIMS * GROUP_BYTES + lane % 16] |= u8::from(is_plus) << bit;
                }
            }
            let bound = table.step * (dims / GROUP_DIMS) as f32 * 0.5 + 1e-3;
            for (sum, expected) in scanned(Kernel::Scalar, &table, &codes).iter().zip(expected) {
                let got = sum * table.step + table.base;
                assert!((got - expected).abs() <= bound, "{got} instead of {expected}, within {bound}");
            }
        }
    }
}
