//! Versions: a total order over all writes.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::NodeId;

/// Version of a point: a hybrid logical clock timestamp, the node that stamped it, and a number that this node never uses
/// twice, a total order over all writes. Time orders; node and number make it unique.
///
/// `time` holds milliseconds since the Unix epoch in its upper 48 bits and a counter in its lower 16 (Kulkarni et al.,
/// "Logical Physical Clocks", 2014).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// Hybrid logical time.
    pub time: u64,
    /// Node that stamped the write.
    pub node: NodeId,
    /// The number of that node's start in the upper 32 bits, and of its stamp since then in the lower 32. 0 in versions of
    /// before there was such a number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub seq: u64,
}

fn is_zero(seq: &u64) -> bool {
    *seq == 0
}

impl Version {
    /// Older than every stamped version.
    pub const ZERO: Self = Self { time: 0, node: NodeId::from_bytes([0; 16]), seq: 0 };
}

/// `milliseconds.counter-node`, as shown to people and in JSON, and behind it the number of the stamp where it has one.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}-{}", self.time >> 16, self.time & 0xffff, self.node)?;
        if self.seq == 0 { Ok(()) } else { write!(f, "-{:x}", self.seq) }
    }
}
