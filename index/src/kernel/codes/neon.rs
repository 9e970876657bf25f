//! aarch64 kernels: 16 bytes of a code at a time, with the multiplications that every such processor has.

use std::arch::aarch64::*;

macro_rules! measure {
    ($name:ident, |$sums:ident, $byte:ident, $first:ident, $second:ident| $step:expr) => {
        /// See [`MeasureCodes`](super::MeasureCodes).
        #[target_feature(enable = "neon")]
        pub(crate) unsafe fn $name(
            weights: *const i8,
            scales: [f32; 2],
            bytes: usize,
            codes: &[*const u8],
            out: &mut [f32],
        ) {
            for (code, out) in codes.iter().zip(out) {
                let mut sums = [vdupq_n_s32(0); 3];
                let $sums = &mut sums;
                let mut at = 0;
                while at < bytes {
                    let left = bytes - at;
                    // SAFETY: each load reads within `bytes` of the code and of each half of the weights.
                    let ($byte, $first, $second) = unsafe {
                        (
                            load(code.add(at), left),
                            vreinterpretq_s8_u8(load(weights.add(at).cast(), left)),
                            vreinterpretq_s8_u8(load(weights.add(bytes + at).cast(), left)),
                        )
                    };
                    $step;
                    at += 16;
                }
                let [squares, first, second] = sums.map(|sum| vaddvq_s32(sum) as f32);
                *out = squares + scales[0] * first + scales[1] * second;
            }
        }
    };
}

measure!(measure_four, |sums, byte, first, second| {
    let (low, high) = (vandq_u8(byte, vdupq_n_u8(15)), vshrq_n_u8::<4>(byte));
    let (low, high) = (vreinterpretq_s8_u8(low), vreinterpretq_s8_u8(high));
    sums[0] = add_products(add_products(sums[0], low, low), high, high);
    sums[1] = add_products(sums[1], low, first);
    sums[2] = add_products(sums[2], high, second);
});
measure!(measure_eight, |sums, byte, first, second| {
    let halves = [
        (vget_low_u8(byte), vget_low_s8(first), vget_low_s8(second)),
        (vget_high_u8(byte), vget_high_s8(first), vget_high_s8(second)),
    ];
    for (byte, first, second) in halves {
        let byte = vreinterpretq_s16_u16(vmovl_u8(byte));
        sums[0] = add_words(sums[0], byte, vsubq_s16(byte, vdupq_n_s16(128)));
        sums[1] = add_words(sums[1], byte, vmovl_s8(first));
        sums[2] = add_words(sums[2], byte, vmovl_s8(second));
    }
});
/// Up to 16 bytes; zeros where fewer are left.
///
/// # Safety
/// `from` is readable for 16 bytes, or for `left` where that is less.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn load(from: *const u8, left: usize) -> uint8x16_t {
    if left >= 16 {
        // SAFETY: 16 bytes are readable.
        return unsafe { vld1q_u8(from) };
    }
    let mut bytes = [0u8; 16];
    // SAFETY: `left` bytes are readable, and fewer than the array holds.
    unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), left) };
    // SAFETY: the array holds 16 bytes.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn add_products(sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // A product is at most 15 * 128 in size here, so that two fit into 16 bits.
    let products = vmull_s8(vget_low_s8(a), vget_low_s8(b));
    vpadalq_s16(sum, vmlal_high_s8(products, a, b))
}

#[inline]
#[target_feature(enable = "neon")]
fn add_words(sum: int32x4_t, a: int16x8_t, b: int16x8_t) -> int32x4_t {
    let sum = vmlal_s16(sum, vget_low_s16(a), vget_low_s16(b));
    vmlal_high_s16(sum, a, b)
}
