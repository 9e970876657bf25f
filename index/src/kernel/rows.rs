//! One query against many rows: made of a kernel for one row.

use super::prefetch::prefetch;

/// f32 values in a cache line.
const LINE_VALUES: usize = 16;
/// Rows that are fetched ahead of the one being measured.
pub(crate) const ROWS_AHEAD: usize = 3;
/// Lines of one row fetched ahead; the processor sees a longer sequence by itself.
const PREFETCH_LINES_MAX: usize = 24;

/// Asks for every cache line of a row of `dim` values and one more, where rows keep their norm.
#[inline(always)]
pub(crate) fn prefetch_row(row: *const f32, dim: usize) {
    for line in 0..=(dim / LINE_VALUES).min(PREFETCH_LINES_MAX) {
        prefetch(row.wrapping_add(line * LINE_VALUES));
    }
}

/// Makes the one-to-many form of a one-to-one kernel.
macro_rules! rows_of {
    ($(#[$attribute:meta])* $rows:ident, $one:ident) => {
        $(#[$attribute])*
        pub(crate) unsafe fn $rows(query: *const f32, dim: usize, rows: &[*const f32], out: &mut [f32]) {
            for row in &rows[..rows.len().min($crate::kernel::rows::ROWS_AHEAD)] {
                $crate::kernel::rows::prefetch_row(*row, dim);
            }
            for (at, (row, out)) in rows.iter().zip(out).enumerate() {
                if let Some(row) = rows.get(at + $crate::kernel::rows::ROWS_AHEAD) {
                    $crate::kernel::rows::prefetch_row(*row, dim);
                }
                // SAFETY: the caller's promise on pointers, length and instruction set is the one asked for here.
                *out = unsafe { $one(query, *row, dim) };
            }
        }
    };
}
pub(crate) use rows_of;
