//! Every kernel that this processor has against sums in whole numbers, of codes unpacked here.

use super::{Width, measure};
use crate::kernel::Kernel;

const WIDTHS: [Width; 2] = [Width::Four, Width::Eight];

/// Every length in bytes that the dimensions 1 to 200 and the larger ones need at either width.
fn lengths() -> impl Iterator<Item = usize> {
    (1..=200).chain([384, 392, 480, 768, 784, 960, 1536, 3072])
}

/// Coordinates of one byte.
fn coordinates(width: Width, byte: u8) -> [i64; 2] {
    match width {
        Width::Four => [(byte & 15).into(), (byte >> 4).into()],
        Width::Eight => [byte.into(); 2],
    }
}

fn squares(width: Width, byte: u8) -> i64 {
    let [low, high] = coordinates(width, byte);
    match width {
        Width::Four => low * low + high * high,
        Width::Eight => low * (low - 128),
    }
}

fn check(width: Width, weights: &[i8], scales: [f32; 2], bytes: usize, codes: &[Vec<u8>]) {
    assert!(weights.len() >= 2 * bytes && codes.iter().all(|code| code.len() >= bytes));
    let pointers: Vec<*const u8> = codes.iter().map(|code| code.as_ptr()).collect();
    let (first, second) = (&weights[..bytes], &weights[bytes..2 * bytes]);
    for kernel in Kernel::available() {
        let mut measured = vec![f32::NAN; codes.len()];
        // SAFETY: the weights are twice `bytes` long, every code is as long, and the processor has the kernel.
        unsafe { measure(kernel, width)(weights.as_ptr(), scales, bytes, &pointers, &mut measured) };
        for (at, code) in codes.iter().enumerate() {
            let mut sums = [0i64; 3];
            for (j, &byte) in code[..bytes].iter().enumerate() {
                let [low, high] = coordinates(width, byte);
                sums[0] += squares(width, byte);
                sums[1] += low * i64::from(first[j]);
                sums[2] += high * i64::from(second[j]);
            }
            let parts = [sums[0] as f64, f64::from(scales[0]) * sums[1] as f64, f64::from(scales[1]) * sums[2] as f64];
            let expected: f64 = parts.iter().sum();
            let error = (f64::from(measured[at]) - expected).abs();
            let size: f64 = parts.iter().map(|part| part.abs()).sum::<f64>() + 128.0 * bytes as f64;
            let label = format!("{kernel:?} {width:?}, {bytes} bytes, code {at} of {}", codes.len());
            assert!(error <= size * 1e-6, "{label}: {} instead of {expected}", measured[at]);
        }
    }
}

#[test]
fn every_kernel_agrees_with_whole_sums_at_every_length_and_number_of_codes() {
    let mut random = fastrand::Rng::with_seed(13);
    for bytes in lengths() {
        for width in WIDTHS {
            let count = random.usize(1..10);
            let weights: Vec<i8> = (0..2 * bytes).map(|_| random.i8(..)).collect();
            let codes: Vec<Vec<u8>> = (0..count).map(|_| (0..bytes).map(|_| random.u8(..)).collect()).collect();
            check(width, &weights, [random.f32() - 0.5, random.f32() / 64.0], bytes, &codes);
        }
    }
}

#[test]
fn the_largest_values_overflow_nothing_and_no_byte_past_the_end_counts() {
    for bytes in lengths().chain([16_384]) {
        for width in WIDTHS {
            for (weight, byte) in [(i8::MAX, u8::MAX), (i8::MIN, u8::MAX), (i8::MIN, 0), (1, 0x80), (-1, 0x0f)] {
                let mut code = vec![byte; bytes];
                code.extend([0xa7; 64]);
                let mut other = vec![!byte; bytes];
                other.extend([0x5c; 64]);
                let mut weights = vec![weight; 2 * bytes];
                weights.extend([77; 64]);
                check(width, &weights, [1.0, 0.5], bytes, &[code, other]);
            }
        }
    }
}

#[test]
fn a_known_distance_comes_out() {
    // Two coordinates, 3 and 12, against a query at 5 and 10: the terms are 9 + 144 - 2 * (15 + 120), and the squares
    // of the query, 125, are the caller's to add.
    for kernel in Kernel::available() {
        let mut out = [0.0];
        // SAFETY: one byte of code, two of weights, and the processor has the kernel.
        unsafe {
            let code = [0xc3u8];
            measure(kernel, Width::Four)([-10, -20].as_ptr(), [1.0, 1.0], 1, &[code.as_ptr()], &mut out);
        }
        assert_eq!(out[0] + 125.0, 4.0 + 4.0, "{kernel:?}");
    }
}
