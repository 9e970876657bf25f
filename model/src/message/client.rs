//! What applications ask: points.

use crate::{
    DecodePayloadError, Hit, Level, Metric, Payload, PointId, RawPayload, RawPoint, RawStoredPoint, ScanCursor, Vector,
    Version,
};
use serde::{Deserialize, Serialize};

/// Writes points, up to [`crate::limits::BATCH_POINTS_MAX`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Put {
    /// Collection name.
    pub collection: String,
    /// The points.
    pub points: Vec<RawPoint>,
    /// Durable replicas to wait for.
    #[serde(default)]
    pub level: Level,
    /// The version of each point, as [`Stamp`] gave it. Empty: the node that is asked stamps them, anew each time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stamps: Vec<Version>,
}

/// Reads points by id.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Get {
    /// Collection name.
    pub collection: String,
    /// The ids; the reply has one entry for each, in this order.
    pub ids: Vec<PointId>,
    /// Replicas to wait for.
    #[serde(default)]
    pub level: Level,
    /// Whether vectors are wanted.
    pub with_vectors: bool,
}

/// Deletes points by id. Deleting what is absent succeeds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Delete {
    /// Collection name.
    pub collection: String,
    /// The ids.
    pub ids: Vec<PointId>,
    /// Durable replicas to wait for.
    #[serde(default)]
    pub level: Level,
    /// The version of each tombstone, as [`Stamp`] gave it. Empty: the node that is asked stamps them, anew each time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stamps: Vec<Version>,
}

/// Asks for the versions that points are to be written with. A put or a delete that is sent with its stamps takes effect
/// once, however often it is sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stamp {
    /// Collection name.
    pub collection: String,
    /// The ids; the reply has one entry for each, in this order.
    pub ids: Vec<PointId>,
    /// The level that they will be written at.
    #[serde(default)]
    pub level: Level,
}

/// What a point is to be written with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stamped {
    /// A version newer than every one that was acknowledged before.
    Version(Version),
    /// The id is not valid.
    Refused(String),
    /// Too few replicas told their versions.
    Unavailable(String),
}

/// Asks for the addresses of the members of the mesh.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Members {}

/// Answer to [`Members`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MembersReply {
    /// Where each node is reached that is up, by the node that answers.
    pub addresses: Vec<String>,
}

impl MembersReply {
    /// These addresses.
    pub fn new(addresses: Vec<String>) -> Self {
        Self { addresses }
    }
}

/// What is searched for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Query {
    /// Points near this vector.
    Vector(Vector),
    /// Points near the stored point of this id, itself left out.
    Id(PointId),
}

/// Finds the `k` best points.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Search {
    /// Collection name.
    pub collection: String,
    /// What is searched for.
    pub query: Query,
    /// Vector field; `""` is the default one.
    #[serde(default)]
    pub field: String,
    /// Hits wanted, 1 to [`crate::limits::K_MAX`].
    pub k: u32,
    /// Candidates that the graph walk keeps; absent means the default.
    #[serde(default)]
    pub ef: Option<u32>,
    /// Only hits at least this good: a least similarity for cosine and dot, a greatest distance for the others.
    #[serde(default)]
    pub threshold: Option<f32>,
    /// Replicas of every range to ask.
    #[serde(default)]
    pub level: Level,
    /// Whether payloads are wanted.
    pub with_payload: bool,
    /// Whether vectors are wanted.
    #[serde(default)]
    pub with_vectors: bool,
    /// Answer with what the live nodes have when a range has no live replica.
    #[serde(default)]
    pub allow_partial: bool,
    /// Search exactly, without the graph.
    #[serde(default)]
    pub exact: bool,
}

/// Answer to [`Search`]. With a [`RawPayload`] it is the answer as it travels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SearchReply<P = Payload> {
    /// Best first.
    pub hits: Vec<Hit<P>>,
    /// Share of the ring that was searched, 1.0 unless a partial answer was allowed.
    pub coverage: f64,
    /// The metric that scored them.
    pub metric: Metric,
}

impl<P> SearchReply<P> {
    /// Hits, best first, of a search of this share of the ring.
    pub fn new(hits: Vec<Hit<P>>, coverage: f64, metric: Metric) -> Self {
        Self { hits, coverage, metric }
    }
}

/// The answer to a search as it travels.
pub type RawSearchReply = SearchReply<RawPayload>;

impl RawSearchReply {
    /// The answer with the payloads of its hits decoded.
    ///
    /// # Errors
    /// When a payload is none.
    pub fn decode(self) -> Result<SearchReply, DecodePayloadError> {
        let Self { hits, coverage, metric } = self;
        Ok(SearchReply { hits: hits.into_iter().map(Hit::decode).collect::<Result<_, _>>()?, coverage, metric })
    }
}

impl From<SearchReply> for RawSearchReply {
    fn from(reply: SearchReply) -> Self {
        let SearchReply { hits, coverage, metric } = reply;
        Self { hits: hits.into_iter().map(Hit::from).collect(), coverage, metric }
    }
}

/// Reads a collection page by page, in ring order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scan {
    /// Collection name.
    pub collection: String,
    /// Where the last page ended; absent for the first.
    pub after: Option<ScanCursor>,
    /// Most points in the page.
    pub limit: u32,
    /// Replicas of every range to ask.
    #[serde(default)]
    pub level: Level,
    /// Whether vectors are wanted.
    #[serde(default = "wanted")]
    pub with_vectors: bool,
    /// Whether payloads are wanted.
    #[serde(default = "wanted")]
    pub with_payload: bool,
}

/// Reads a collection from a place to its end, in ring order: each chunk is a page, and says where to go on after it. A
/// node may end the stream before the last page; the caller goes on from there with another request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ScanStream {
    /// What is read; its limit is that of each chunk.
    pub scan: Scan,
}

/// What is wanted where a request does not say that it is not.
fn wanted() -> bool {
    true
}

/// A page of points.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ScanReply {
    /// The points, in ring order.
    pub points: Vec<RawStoredPoint>,
    /// Where to go on; absent after the last page.
    pub next: Option<ScanCursor>,
}
