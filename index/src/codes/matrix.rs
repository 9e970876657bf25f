//! Rows of values, for training.
#![allow(unsafe_code, reason = "kernels: rows of the matrix are handed over as pointers")]

use crate::kernel::{Kernel, Measure, MeasureRows};
use crate::random::Random;

/// What is left of a row of length one that depends on others.
const DEPENDENT: f32 = 1e-4;
/// Rows that one call of a kernel measures.
const ROWS_BATCH: usize = 32;

/// Rows of values, one after another.
pub(crate) struct Matrix {
    pub rows: usize,
    pub columns: usize,
    pub values: Vec<f32>,
}

impl Matrix {
    /// All values zero.
    pub fn zero(rows: usize, columns: usize) -> Self {
        Self { rows, columns, values: vec![0.0; rows * columns] }
    }

    /// About normal values.
    pub fn random(rows: usize, columns: usize, random: &mut Random) -> Self {
        Self { rows, columns, values: (0..rows * columns).map(|_| random.normal()).collect() }
    }

    /// Row after row.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> + Clone {
        self.values.chunks_exact(self.columns.max(1))
    }

    /// Makes the rows orthogonal and of length one, by Gram and Schmidt; a row that depends on those before it is
    /// drawn anew. There are no more rows than columns.
    pub fn orthonormalize(&mut self, kernel: Kernel, random: &mut Random) {
        let mut along = vec![0.0; self.rows];
        for at in 0..self.rows {
            let (before, rest) = self.values.split_at_mut(at * self.columns);
            let row = &mut rest[..self.columns];
            loop {
                let length = product(kernel, row, row).sqrt();
                let is_usable = length > 0.0 && length.is_finite();
                if is_usable {
                    row.iter_mut().for_each(|value| *value /= length);
                    // Twice is enough: the first turn leaves rounding errors as large as what it took away.
                    for _ in 0..2 {
                        products(kernel, row, before, &mut along[..at]);
                        for (other, along) in before.chunks_exact(self.columns).zip(&along) {
                            add(row, other, -along);
                        }
                    }
                    let left = product(kernel, row, row).sqrt();
                    if left > DEPENDENT {
                        row.iter_mut().for_each(|value| *value /= left);
                        break;
                    }
                }
                row.fill_with(|| random.normal());
            }
        }
    }
}

/// The product of two rows of one length.
pub(crate) fn product(kernel: Kernel, a: &[f32], b: &[f32]) -> f32 {
    let mut out = [0.0];
    products(kernel, a, b, &mut out);
    out[0]
}

/// The products of one row with each of many that lie one after another.
pub(crate) fn products(kernel: Kernel, row: &[f32], others: &[f32], out: &mut [f32]) {
    assert!(others.len() >= out.len() * row.len());
    let function: MeasureRows = kernel.rows(Measure::Product);
    for (others, out) in others.chunks(ROWS_BATCH * row.len()).zip(out.chunks_mut(ROWS_BATCH)) {
        let mut pointers = [std::ptr::null(); ROWS_BATCH];
        for (pointer, other) in pointers.iter_mut().zip(others.chunks_exact(row.len())) {
            *pointer = other.as_ptr();
        }
        // SAFETY: every row is as long as the first, and the kernel is one that is available.
        unsafe { function(row.as_ptr(), row.len(), &pointers[..out.len()], out) };
    }
}

/// Adds a row, multiplied, to another.
pub(crate) fn add(to: &mut [f32], from: &[f32], times: f32) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += times * from);
}
