//! What the benches run: each kernel on one query and a batch of rows, as a walk calls it. No part of the interface.
#![allow(missing_docs, reason = "hidden from the documentation")]

use ::half::f16;

use crate::kernel::codes::{self, Width};
use crate::kernel::{Kernel, Measure, half};

/// One call of a kernel, with all that it reads.
pub struct Case {
    pub name: &'static str,
    pub call: Box<dyn FnMut()>,
}

/// Rows that a case measures at once: the links of a node with `m` 16.
pub const ROWS: usize = 32;

/// The cases of one kernel, on vectors of `dim` values. The kernel must be available.
pub fn cases(kernel: Kernel, dim: usize) -> Vec<Case> {
    assert!(kernel.is_available());
    let value = |at: usize| ((at * 7919) % 255) as f32 / 255.0 - 0.5;
    let query: Vec<f32> = (0..dim).map(value).collect();
    let rows: Vec<f32> = (0..ROWS * dim).map(|at| value(at + 3)).collect();
    let mut cases = Vec::new();
    let measures = [
        ("f32 product", "f16 product", Measure::Product),
        ("f32 squared difference", "f16 squared difference", Measure::SquaredDifference),
        ("f32 absolute difference", "f16 absolute difference", Measure::AbsoluteDifference),
    ];
    for (name, half_name, measure) in measures {
        let (query_f32, rows_f32) = (query.clone(), rows.clone());
        let function = kernel.rows(measure);
        let mut out = [0.0; ROWS];
        let call = move || {
            let pointers: [*const f32; ROWS] = std::array::from_fn(|row| rows_f32[row * dim..].as_ptr());
            // SAFETY: query and rows are `dim` long, and the kernel is available.
            unsafe { function(query_f32.as_ptr(), dim, &pointers, &mut out) };
            std::hint::black_box(&out);
        };
        cases.push(Case { name, call: Box::new(call) });
        let (query_f32, rows_f16) = (query.clone(), rows.iter().map(|value| f16::from_f32(*value)).collect::<Vec<_>>());
        let function = half::rows(kernel, measure);
        let mut out = [0.0; ROWS];
        let call = move || {
            let pointers: [*const f16; ROWS] = std::array::from_fn(|row| rows_f16[row * dim..].as_ptr());
            // SAFETY: query and rows are `dim` long, and the kernel is available.
            unsafe { function(query_f32.as_ptr(), dim, &pointers, &mut out) };
            std::hint::black_box(&out);
        };
        cases.push(Case { name: half_name, call: Box::new(call) });
    }
    for (name, width, bytes) in [("4 bits", Width::Four, dim.div_ceil(2)), ("8 bits", Width::Eight, dim)] {
        let weights: Vec<i8> = (0..2 * bytes).map(|at| (at * 7919) as i8).collect();
        let codes: Vec<u8> = (0..ROWS * bytes).map(|at| (at * 104_729) as u8).collect();
        let function = codes::measure(kernel, width);
        let mut out = [0.0; ROWS];
        let call = move || {
            let pointers: [*const u8; ROWS] = std::array::from_fn(|row| codes[row * bytes..].as_ptr());
            // SAFETY: there are twice as many weights as a code has bytes, and the kernel is available.
            unsafe { function(weights.as_ptr(), [0.5, 0.25], bytes, &pointers, &mut out) };
            std::hint::black_box(&out);
        };
        cases.push(Case { name, call: Box::new(call) });
    }
    cases
}
