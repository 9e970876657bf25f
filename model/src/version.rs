//! Versions: a total order over all writes.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::NodeId;

/// Version of a point: a hybrid logical clock timestamp and the node that stamped it, a total order over all writes.
///
/// `time` holds milliseconds since the Unix epoch in its upper 48 bits and a counter in its lower 16 (Kulkarni et al.,
/// "Logical Physical Clocks", 2014).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// Hybrid logical time.
    pub time: u64,
    /// Node that stamped the write.
    pub node: NodeId,
}

impl Version {
    /// Older than every stamped version.
    pub const ZERO: Self = Self { time: 0, node: NodeId::from_bytes([0; 16]) };
}

/// `milliseconds.counter-node`, as shown to people and in JSON.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}-{}", self.time >> 16, self.time & 0xffff, self.node)
    }
}
