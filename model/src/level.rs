//! Consistency levels: how many replicas an operation waits for.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How many replicas an operation waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// One replica: fast, eventually consistent.
    One,
    /// A majority of the replicas: a linearizable register per point.
    #[default]
    Quorum,
    /// Every replica.
    All,
}

impl Level {
    /// How many of `replicas` replicas this level waits for.
    pub fn required(self, replicas: usize) -> usize {
        match self {
            Self::One => 1.min(replicas),
            Self::Quorum => replicas / 2 + 1,
            Self::All => replicas,
        }
    }

    /// Lower-case name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Quorum => "quorum",
            Self::All => "all",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::One, Self::Quorum, Self::All]
            .into_iter()
            .find(|level| level.name() == text)
            .ok_or_else(|| UnknownLevel(text.to_owned()))
    }
}

/// A consistency level that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("level {0:?} is unknown: use one, quorum or all")]
pub struct UnknownLevel(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quorums_intersect() {
        for replicas in 1..=9 {
            let quorum = Level::Quorum.required(replicas);
            assert!(2 * quorum > replicas && quorum <= replicas, "{quorum} of {replicas}");
        }
    }
}
