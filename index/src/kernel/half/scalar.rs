//! Portable kernels: the bits are shifted into place, so that the compiler may use vectors that know no binary16.

use super::rows::{REBIAS, half_rows_of};

half_rows_of!(product_rows, product);
half_rows_of!(squared_difference_rows, squared_difference);
half_rows_of!(absolute_difference_rows, absolute_difference);

/// # Safety
/// Both pointers are readable for `dim` values.
unsafe fn product(a: *const f32, b: *const u16, dim: usize) -> f32 {
    // SAFETY: passed on to the caller.
    unsafe { sum(a, b, dim, |a, b| a * b) }
}

/// # Safety
/// Both pointers are readable for `dim` values.
unsafe fn squared_difference(a: *const f32, b: *const u16, dim: usize) -> f32 {
    // SAFETY: passed on to the caller.
    unsafe { sum(a, b, dim, |a, b| (a - b) * (a - b)) }
}

/// # Safety
/// Both pointers are readable for `dim` values.
unsafe fn absolute_difference(a: *const f32, b: *const u16, dim: usize) -> f32 {
    // SAFETY: passed on to the caller.
    unsafe { sum(a, b, dim, |a, b| (a - b).abs()) }
}

/// # Safety
/// Both pointers are readable for `dim` values.
#[inline(always)]
unsafe fn sum(a: *const f32, b: *const u16, dim: usize, term: impl Fn(f32, f32) -> f32) -> f32 {
    // SAFETY: the caller promises that both are readable for `dim` values; nothing writes them meanwhile.
    let (a, b) = unsafe { (std::slice::from_raw_parts(a, dim), std::slice::from_raw_parts(b, dim)) };
    let (a_eights, a_rest) = a.as_chunks::<8>();
    let (b_eights, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0f32; 8];
    for (a, b) in a_eights.iter().zip(b_eights) {
        for lane in 0..8 {
            sums[lane] += term(a[lane], widen(b[lane]));
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(&a, &b)| term(a, widen(b))).sum();
    sums.iter().sum::<f32>() + rest
}

#[inline(always)]
fn widen(bits: u16) -> f32 {
    let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13) * REBIAS;
    f32::from_bits(magnitude.to_bits() | (u32::from(bits & 0x8000) << 16))
}
