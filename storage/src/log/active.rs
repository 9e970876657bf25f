//! The segment of a log that is written to.

use super::segment::Segment;
use crate::disk::DiskFile;

/// The segment that is written to.
pub(super) struct Active {
    pub segment: Segment,
    pub file: Box<dyn DiskFile>,
    /// Where the next frame goes.
    pub end: u64,
    /// Length of the file: bytes from `end` to here are reserved and zero.
    pub reserved: u64,
    /// Crc of the last frame, which the next one is chained to.
    pub chain: u32,
}
