//! Portable kernels, and what the others are tested against. Eight sums side by side let the compiler use whatever
//! vectors the target has for certain.

use super::rows::rows_of;

rows_of!(product_rows, product);
rows_of!(squared_difference_rows, squared_difference);
rows_of!(absolute_difference_rows, absolute_difference);

/// # Safety
/// Both pointers are readable for `dim` values.
unsafe fn product(a: *const f32, b: *const f32, dim: usize) -> f32 {
    // SAFETY: passed on to the caller.
    unsafe { sum(a, b, dim, |a, b| a * b) }
}

/// # Safety
/// Both pointers are readable for `dim` values.
unsafe fn squared_difference(a: *const f32, b: *const f32, dim: usize) -> f32 {
    // SAFETY: passed on to the caller.
    unsafe { sum(a, b, dim, |a, b| (a - b) * (a - b)) }
}

/// # Safety
/// Both pointers are readable for `dim` values.
unsafe fn absolute_difference(a: *const f32, b: *const f32, dim: usize) -> f32 {
    // SAFETY: passed on to the caller.
    unsafe { sum(a, b, dim, |a, b| (a - b).abs()) }
}

/// # Safety
/// Both pointers are readable for `dim` values.
#[inline(always)]
unsafe fn sum(a: *const f32, b: *const f32, dim: usize, term: impl Fn(f32, f32) -> f32) -> f32 {
    // SAFETY: the caller promises that both are readable for `dim` values; nothing writes them meanwhile.
    let (a, b) = unsafe { (std::slice::from_raw_parts(a, dim), std::slice::from_raw_parts(b, dim)) };
    let (a_eights, a_rest) = a.as_chunks::<8>();
    let (b_eights, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0f32; 8];
    for (a, b) in a_eights.iter().zip(b_eights) {
        for lane in 0..8 {
            sums[lane] += term(a[lane], b[lane]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(&a, &b)| term(a, b)).sum();
    sums.iter().sum::<f32>() + rest
}
