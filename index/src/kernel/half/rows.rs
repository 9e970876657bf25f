//! One query against many rows of binary16: made of a kernel for one row.

/// Exponents of an f16 in place of those of an f32 are this many powers of two too small; the product is exact, that
/// of a subnormal one too.
pub(super) const REBIAS: f32 = f32::from_bits((127 + 112) << 23);

/// Makes the one-to-many form of a one-to-one kernel. Rows lie one after another as a rule, and the processor sees that.
macro_rules! half_rows_of {
    ($(#[$attribute:meta])* $rows:ident, $one:ident) => {
        $(#[$attribute])*
        pub(crate) unsafe fn $rows(query: *const f32, dim: usize, rows: &[*const half::f16], out: &mut [f32]) {
            for (row, out) in rows.iter().zip(out) {
                // SAFETY: the caller's promise on pointers, length and instruction set is the one asked for here.
                *out = unsafe { $one(query, row.cast(), dim) };
            }
        }
    };
}
pub(crate) use half_rows_of;
