//! What names a version of a point in an index.

/// A dense number that names one version of one point. The caller assigns slots, in ascending order.
pub type Slot = u32;

/// Highest slot that can be stored.
pub const SLOT_MAX: Slot = (1 << 30) - 1;
