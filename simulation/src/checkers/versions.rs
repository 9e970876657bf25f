//! One version of a point has one value, wherever it is seen.

use std::collections::BTreeMap;
use std::fmt;

use vecino_model::{NodeId, Version};

/// Where a version was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On a replica.
    Replica(NodeId),
    /// In an answer to this client.
    Answer(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replica(node) => write!(f, "on node {}", node.short()),
            Self::Answer(client) => write!(f, "in an answer to client {client}"),
        }
    }
}

/// A version that has two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "version {version} of point {point} is {} {}, and {} {}",
    shown(first.0), first.1, shown(second.0), second.1
)]
pub struct TwoValues {
    /// Of which point.
    pub point: u64,
    /// Which version.
    pub version: Version,
    /// One value, none where it is a delete, and where it was seen first.
    pub first: (Option<u64>, Place),
    /// The other, and where it was seen.
    pub second: (Option<u64>, Place),
}

fn shown(value: Option<u64>) -> String {
    value.map_or("a delete".to_owned(), |value| format!("value {value}"))
}

/// All versions that were seen in a run.
#[derive(Clone, Debug, Default)]
pub struct Versions {
    seen: BTreeMap<(u64, Version), (Option<u64>, Place)>,
}

impl Versions {
    /// A version was seen with a value, or as a delete.
    pub fn observe(&mut self, point: u64, version: Version, value: Option<u64>, place: Place) -> Result<(), TwoValues> {
        let first = *self.seen.entry((point, version)).or_insert((value, place));
        if first.0 == value { Ok(()) } else { Err(TwoValues { point, version, first, second: (value, place) }) }
    }

    /// How many versions were seen.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_one_value() {
        let node = NodeId::from_bytes([3; 16]);
        let version = Version { time: 1, node, seq: 0 };
        let mut versions = Versions::default();
        assert_eq!(versions.observe(7, version, Some(1), Place::Replica(node)), Ok(()));
        assert_eq!(versions.observe(7, version, Some(1), Place::Answer(4)), Ok(()), "the same again");
        assert_eq!(versions.observe(8, version, Some(2), Place::Answer(4)), Ok(()), "another point of the batch");
        assert_eq!(versions.observe(7, Version { seq: 1, ..version }, Some(2), Place::Answer(4)), Ok(()));
        assert_eq!(versions.len(), 3);
        let two = versions.observe(7, version, None, Place::Answer(4)).unwrap_err();
        assert_eq!(two.first, (Some(1), Place::Replica(node)));
        let told =
            format!("version {version} of point 7 is value 1 on node 03030303, and a delete in an answer to client 4");
        assert_eq!(two.to_string(), told);
    }
}
