//! What a log holds at most.

/// Largest record, in bytes.
pub const RECORD_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Largest batch with its framing, in bytes.
pub const BATCH_BYTES_MAX: u64 = 256 * 1024 * 1024;
