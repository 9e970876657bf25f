//! What a collection is: its vector fields, how their vectors are compared, and how writes to it become durable.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Name of the default vector field.
pub const DEFAULT_FIELD: &str = "";

/// How the similarity of two vectors is scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// Cosine of the angle, -1 to 1, higher is better. Zero vectors are refused.
    Cosine,
    /// Euclidean distance, lower is better.
    Euclidean,
    /// Inner product, higher is better.
    Dot,
    /// Manhattan (L1) distance, lower is better.
    Manhattan,
}

impl Metric {
    /// Whether a higher score is a better one.
    pub fn higher_is_better(self) -> bool {
        matches!(self, Self::Cosine | Self::Dot)
    }

    /// Lower-case name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Euclidean => "euclidean",
            Self::Dot => "dot",
            Self::Manhattan => "manhattan",
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Metric {
    type Err = UnknownMetric;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Cosine, Self::Euclidean, Self::Dot, Self::Manhattan]
            .into_iter()
            .find(|metric| metric.name() == text)
            .ok_or_else(|| UnknownMetric(text.to_owned()))
    }
}

/// A metric name that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("metric {0:?} is unknown: use cosine, euclidean, dot or manhattan")]
pub struct UnknownMetric(String);

/// What a vector field's index keeps beside the vectors, and so how fast and how large it is. Every profile ranks its last
/// candidates by the vectors themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Codes of one bit a dimension beside every link, and of four bits beside every vector: the fastest.
    #[default]
    Fast,
    /// Codes of four bits a dimension beside every vector: the smallest.
    Compact,
    /// No codes: searches go by the vectors, and as far as these tell. The reference.
    Plain,
}

impl Profile {
    /// Lower-case name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Compact => "compact",
            Self::Plain => "plain",
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = [Self::Fast, Self::Compact, Self::Plain];
        known.into_iter().find(|profile| profile.name() == text).ok_or_else(|| UnknownProfile(text.to_owned()))
    }
}

/// A profile name that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("profile {0:?} is unknown: use fast, compact or plain")]
pub struct UnknownProfile(String);

/// Schema of one vector field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldSchema {
    /// Number of f32 in each vector, 1 to [`crate::limits::DIM_MAX`].
    pub dim: u32,
    /// How vectors of this field are compared.
    pub metric: Metric,
    /// HNSW `M`: links of a node on the upper layers; layer 0 has twice as many.
    pub m: u32,
    /// HNSW `efConstruction`: candidates kept while a point is linked.
    pub ef_construction: u32,
    /// What the index keeps beside the vectors.
    #[serde(default)]
    pub profile: Profile,
}

/// When a write counts as durable on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fsync {
    /// After the log was flushed to the device (default).
    Always,
    /// Once written; flushed at this interval, in milliseconds. A crash of the machine may lose the writes of one interval.
    EveryMs(u32),
    /// Once written; flushed when the operating system likes.
    Never,
}

/// What a collection is: its vector fields and how many nodes keep each point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionSchema {
    /// Vector fields by name; the default field is `""`.
    pub fields: BTreeMap<String, FieldSchema>,
    /// Number of distinct nodes that keep each point.
    pub replication_factor: u32,
    /// When a write counts as durable on one node.
    pub fsync: Fsync,
}
