//! What a snapshot holds at most.

/// Most arenas in a snapshot.
pub const ARENAS_MAX: usize = 4096;
/// Longest name of an arena, in bytes.
pub const ARENA_NAME_BYTES_MAX: usize = 255;
