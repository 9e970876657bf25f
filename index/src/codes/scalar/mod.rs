//! Scalar codes of the vectors, for walks that measure many: each coordinate of a turned vector as 4 or 8 bits.
//!
//! In the spirit of locally-adaptive vector quantization (Aguerrebere et al. 2023), but with one unit for all vectors,
//! which the turning makes as good as one for each, so that a code is nothing but its coordinates.

mod codes;
mod generation;
mod quantizer;
mod scorer;
#[cfg(test)]
mod tests;

pub(crate) use codes::{ScalarCodes, ScalarQuery};
