//! What requests can be told beside what they are about.

use vecino_model::{
    CollectionSchema, DEFAULT_FIELD, FieldSchema, Fields, Fsync, Level, Metric, Payload, Point, PointId, Profile,
    ScanCursor, Vector,
};
use vecino_net::message::{Query, Search};

/// Links of a point in the graph, unless a schema says otherwise.
pub const DEFAULT_M: u32 = 16;
/// Candidates kept while a point is linked, unless a schema says otherwise.
pub const DEFAULT_EF_CONSTRUCTION: u32 = 200;
/// Hits of a search, unless it says otherwise.
pub const DEFAULT_K: u32 = 10;

/// How a put or a delete is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteOptions {
    /// Durable replicas to wait for.
    pub level: Level,
    /// Whether a write whose outcome is unknown is made again, which is the default. Between the two another client's
    /// write of the same point may be answered, and is then overwritten; who cannot have that turns this off and
    /// decides for themselves.
    pub repeat_unknown: bool,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { level: Level::default(), repeat_unknown: true }
    }
}

/// How points are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetOptions {
    /// Replicas to ask.
    pub level: Level,
    /// Whether vectors are wanted, which is the default.
    pub with_vectors: bool,
}

impl Default for GetOptions {
    fn default() -> Self {
        Self { level: Level::default(), with_vectors: true }
    }
}

/// How a collection is read page by page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanOptions {
    /// Most points in a page.
    pub page_points: u32,
    /// Replicas of every range to ask.
    pub level: Level,
    /// Where to begin: behind this place, which an earlier scan [gave](crate::Pages::cursor).
    pub after: Option<ScanCursor>,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self { page_points: 1000, level: Level::default(), after: None }
    }
}

/// What is searched for, and how.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct SearchRequest {
    query: Query,
    field: String,
    k: u32,
    ef: Option<u32>,
    threshold: Option<f32>,
    level: Level,
    with_payload: bool,
    with_vectors: bool,
    allow_partial: bool,
    exact: bool,
}

impl SearchRequest {
    /// Points like this vector.
    pub fn vector(vector: impl Into<Vector>) -> Self {
        Self::new(Query::Vector(vector.into()))
    }

    /// Points like the stored point of this id, itself left out.
    pub fn like(id: impl Into<PointId>) -> Self {
        Self::new(Query::Id(id.into()))
    }

    fn new(query: Query) -> Self {
        Self {
            query,
            field: DEFAULT_FIELD.to_owned(),
            k: DEFAULT_K,
            ef: None,
            threshold: None,
            level: Level::default(),
            with_payload: true,
            with_vectors: false,
            allow_partial: false,
            exact: false,
        }
    }

    /// How many hits are wanted; [`DEFAULT_K`] unless set.
    pub fn k(mut self, k: u32) -> Self {
        self.k = k;
        self
    }

    /// How many candidates the graph walk keeps: more is slower and finds more.
    pub fn ef(mut self, ef: u32) -> Self {
        self.ef = Some(ef);
        self
    }

    /// Only hits at least this good: a least similarity for cosine and dot, a greatest distance for the others.
    pub fn threshold(mut self, threshold: f32) -> Self {
        self.threshold = Some(threshold);
        self
    }

    /// The vector field to search; the unnamed one unless set.
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    /// Replicas of every range to ask.
    pub fn level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// Whether payloads are wanted; they are unless switched off.
    pub fn with_payload(mut self, with_payload: bool) -> Self {
        self.with_payload = with_payload;
        self
    }

    /// Whether vectors are wanted; they are not unless switched on.
    pub fn with_vectors(mut self, with_vectors: bool) -> Self {
        self.with_vectors = with_vectors;
        self
    }

    /// Whether an answer from a part of the ring will do where the rest has no live replica.
    pub fn allow_partial(mut self, allow_partial: bool) -> Self {
        self.allow_partial = allow_partial;
        self
    }

    /// Whether every vector is to be compared, without the graph.
    pub fn exact(mut self, exact: bool) -> Self {
        self.exact = exact;
        self
    }

    pub(crate) fn into_message(self, collection: String) -> Search {
        let Self { query, field, k, ef, threshold, level, with_payload, with_vectors, allow_partial, exact } = self;
        Search { collection, query, field, k, ef, threshold, level, with_payload, with_vectors, allow_partial, exact }
    }
}

/// A schema with one, unnamed vector field, graph parameters that suit most data, and as many replicas as the mesh
/// thinks right.
pub fn schema(dim: u32, metric: Metric) -> CollectionSchema {
    let field = FieldSchema {
        dim,
        metric,
        m: DEFAULT_M,
        ef_construction: DEFAULT_EF_CONSTRUCTION,
        profile: Profile::default(),
    };
    CollectionSchema { fields: [(DEFAULT_FIELD.to_owned(), field)].into(), replication_factor: 0, fsync: Fsync::Always }
}

/// A point with one, unnamed vector and this payload, which may be empty.
pub fn point(id: impl Into<PointId>, vector: impl Into<Vector>, payload: Payload) -> Point {
    Point { id: id.into(), vectors: Fields::from([(DEFAULT_FIELD.to_owned(), vector.into())]), payload }
}
