//! The vecino binary.
fn main() {}
