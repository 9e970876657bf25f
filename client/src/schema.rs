//! Schemas and points in one line, with the defaults that suit most data.

use vecino_model::{
    CollectionSchema, DEFAULT_FIELD, FieldSchema, Fields, Fsync, Metric, Payload, Point, PointId, Profile, Vector,
};

/// Links of a point in the graph, unless a schema says otherwise.
pub const DEFAULT_M: u32 = 16;
/// Candidates kept while a point is linked, unless a schema says otherwise.
pub const DEFAULT_EF_CONSTRUCTION: u32 = 200;

/// A schema with one, unnamed vector field, graph parameters that suit most data, and as many replicas as the mesh
/// thinks right.
pub fn schema(dim: u32, metric: Metric) -> CollectionSchema {
    named_schema([(DEFAULT_FIELD, field(dim, metric))])
}

/// A schema with these vector fields, and as many replicas as the mesh thinks right.
pub fn named_schema<N: Into<String>>(fields: impl IntoIterator<Item = (N, FieldSchema)>) -> CollectionSchema {
    let fields = fields.into_iter().map(|(name, field)| (name.into(), field)).collect();
    CollectionSchema { fields, replication_factor: 0, fsync: Fsync::Always }
}

/// A vector field with graph parameters that suit most data.
pub fn field(dim: u32, metric: Metric) -> FieldSchema {
    let profile = Profile::default();
    FieldSchema { dim, metric, m: DEFAULT_M, ef_construction: DEFAULT_EF_CONSTRUCTION, profile }
}

/// A point with one, unnamed vector and this payload, which may be empty.
pub fn point(id: impl Into<PointId>, vector: impl Into<Vector>, payload: Payload) -> Point {
    named_point(id, [(DEFAULT_FIELD, vector)], payload)
}

/// A point with named vectors and this payload, which may be empty.
pub fn named_point<N: Into<String>, V: Into<Vector>>(
    id: impl Into<PointId>,
    vectors: impl IntoIterator<Item = (N, V)>,
    payload: Payload,
) -> Point {
    let vectors: Fields = vectors.into_iter().map(|(name, vector)| (name.into(), vector.into())).collect();
    Point { id: id.into(), vectors, payload }
}
