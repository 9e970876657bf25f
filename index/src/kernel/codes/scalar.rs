//! Portable kernels, and what the others are tested against.

/// See [`MeasureCodes`](super::MeasureCodes).
pub(crate) unsafe fn measure_four(
    weights: *const i8,
    scales: [f32; 2],
    bytes: usize,
    codes: &[*const u8],
    out: &mut [f32],
) {
    // SAFETY: passed on to the caller.
    unsafe {
        measure(weights, scales, bytes, codes, out, |byte| {
            let (low, high) = (i32::from(byte & 15), i32::from(byte >> 4));
            (low * low + high * high, low, high)
        });
    }
}

/// See [`MeasureCodes`](super::MeasureCodes).
pub(crate) unsafe fn measure_eight(
    weights: *const i8,
    scales: [f32; 2],
    bytes: usize,
    codes: &[*const u8],
    out: &mut [f32],
) {
    // SAFETY: passed on to the caller.
    unsafe {
        measure(weights, scales, bytes, codes, out, |byte| {
            let value = i32::from(byte);
            (value * (value - 128), value, value)
        });
    }
}

/// # Safety
/// As for [`MeasureCodes`](super::MeasureCodes).
#[inline(always)]
unsafe fn measure(
    weights: *const i8,
    scales: [f32; 2],
    bytes: usize,
    codes: &[*const u8],
    out: &mut [f32],
    parts: impl Fn(u8) -> (i32, i32, i32),
) {
    // SAFETY: the caller promises twice `bytes` readable weights.
    let (first, second) = unsafe { std::slice::from_raw_parts(weights, 2 * bytes) }.split_at(bytes);
    for (code, out) in codes.iter().zip(out) {
        // SAFETY: the caller promises `bytes` readable bytes of every code.
        let code = unsafe { std::slice::from_raw_parts(*code, bytes) };
        let mut sums = [0i32; 3];
        for ((byte, first), second) in code.iter().zip(first).zip(second) {
            let (squares, low, high) = parts(*byte);
            sums[0] += squares;
            sums[1] += low * i32::from(*first);
            sums[2] += high * i32::from(*second);
        }
        *out = sums[0] as f32 + scales[0] * sums[1] as f32 + scales[1] * sums[2] as f32;
    }
}
