//! The identity of what a node's data folder holds.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Id of a data folder: 16 random bytes, made with it, and made anew whenever what it holds may be less than what its node
/// has promised. A node with another disk than the one that the log of changes names does not vote.
///
/// `Display` prints all 32 hex digits; [`DiskId::short`] prints the first 8, for people.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DiskId(#[serde(with = "serde_bytes")] pub [u8; 16]);

impl DiskId {
    /// The first 8 hex digits.
    pub fn short(&self) -> String {
        self.to_string()[..8].to_owned()
    }
}

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DiskId({self})")
    }
}
