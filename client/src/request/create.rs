//! Creating a collection.

use std::future::IntoFuture;

use vecino_mesh::client::Effect;
use vecino_model::{CollectionSchema, DEFAULT_FIELD, FieldSchema, Fsync, Metric, Profile};
use vecino_net::error::ErrorCode;
use vecino_net::message::{CollectionInfo, CreateCollection, DescribeCollection};

use super::reply::Reply;
use crate::error::ClientError;
use crate::schema::field;
use crate::session::Session;

/// Creates a collection on every node; made by [`Collection::create`](crate::Collection::create), and awaited.
///
/// [`profile`](Self::profile), [`m`](Self::m) and [`ef_construction`](Self::ef_construction) are those of the unnamed vector
/// field; a field added by [`field`](Self::field) brings its own.
#[derive(Clone, Debug)]
#[must_use = "nothing is created until it is awaited"]
pub struct CreateRequest {
    session: Session,
    message: CreateCollection,
    if_absent: bool,
}

impl CreateRequest {
    pub(crate) fn new(session: Session, name: String, schema: CollectionSchema) -> Self {
        Self { session, message: CreateCollection { name, schema }, if_absent: false }
    }

    /// On how many nodes each point is kept; three, or all of fewer, unless set.
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.message.schema.replication_factor = replicas;
        self
    }

    /// What the index keeps beside the vectors, and so how fast and how large it is.
    pub fn profile(self, profile: Profile) -> Self {
        self.with_default_field(|field| field.profile = profile)
    }

    /// Links of a point in the graph: HNSW's `M`.
    pub fn m(self, m: u32) -> Self {
        self.with_default_field(|field| field.m = m)
    }

    /// Candidates that are kept while a point is linked: HNSW's `efConstruction`.
    pub fn ef_construction(self, ef_construction: u32) -> Self {
        self.with_default_field(|field| field.ef_construction = ef_construction)
    }

    /// Adds a named vector field, of this dimension and metric.
    pub fn field(self, name: impl Into<String>, dim: u32, metric: Metric) -> Self {
        self.field_of(name, field(dim, metric))
    }

    /// Adds a named vector field with parameters of its own.
    pub fn field_of(mut self, name: impl Into<String>, field: FieldSchema) -> Self {
        self.message.schema.fields.insert(name.into(), field);
        self
    }

    /// When a write counts as durable on one node; after a flush unless set.
    pub fn fsync(mut self, fsync: Fsync) -> Self {
        self.message.schema.fsync = fsync;
        self
    }

    /// Where a collection of that name exists and has the same vector fields, describes it instead of failing. A creation
    /// that did not answer is then safe to repeat.
    pub fn if_absent(mut self) -> Self {
        self.if_absent = true;
        self
    }

    fn with_default_field(mut self, change: impl FnOnce(&mut FieldSchema)) -> Self {
        if let Some(field) = self.message.schema.fields.get_mut(DEFAULT_FIELD) {
            change(field);
        }
        self
    }

    async fn send(self) -> Result<CollectionInfo, ClientError> {
        let Self { session, message, if_absent } = self;
        let error = match session.call(&message, Effect::SingleWrite).await {
            Ok(info) => return Ok(info),
            Err(error) => error,
        };
        if !if_absent || (error.code() != Some(ErrorCode::AlreadyExists) && !error.is_unknown()) {
            return Err(error);
        }
        let describe = DescribeCollection { name: message.name };
        let existing = match session.call(&describe, Effect::Read).await {
            // The creation may still take effect.
            Err(absent) if absent.code() == Some(ErrorCode::NotFound) => return Err(error),
            described => described?,
        };
        match difference(&existing.schema, &message.schema) {
            None => Ok(existing),
            Some(difference) => Err(ClientError::OtherCollection { name: describe.name, difference }),
        }
    }
}

/// What is different about the vector fields that points of the two schemas must have.
fn difference(existing: &CollectionSchema, wanted: &CollectionSchema) -> Option<String> {
    let described = |schema: &CollectionSchema| {
        let field = |(name, field): (&String, &FieldSchema)| {
            let name = if name == DEFAULT_FIELD { String::new() } else { format!("{name:?} of ") };
            format!("{name}dimension {} compared by {}", field.dim, field.metric)
        };
        schema.fields.iter().map(field).collect::<Vec<_>>().join(", ")
    };
    let (existing, wanted) = (described(existing), described(wanted));
    (existing != wanted).then(|| format!("it has vectors {existing}, and asked for was {wanted}"))
}

/// # Errors
/// [`ErrorCode::AlreadyExists`] where the name is in use, unless [`if_absent`](CreateRequest::if_absent) was said; then
/// [`ClientError::OtherCollection`] where the existing one has other vector fields. When whether it was created is
/// [unknown](ClientError::is_unknown), [`Collection::exists`](crate::Collection::exists) tells.
impl IntoFuture for CreateRequest {
    type Output = Result<CollectionInfo, ClientError>;
    type IntoFuture = Reply<CollectionInfo>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::schema;

    #[test]
    fn only_what_points_must_have_makes_a_difference() {
        let wanted = schema(3, Metric::Cosine);
        let mut existing = wanted.clone();
        existing.replication_factor = 3;
        existing.fsync = Fsync::Never;
        assert_eq!(difference(&existing, &wanted), None);
        let other = schema(4, Metric::Cosine);
        let text = difference(&other, &wanted).unwrap();
        assert_eq!(
            text,
            "it has vectors dimension 4 compared by cosine, and asked for was dimension 3 compared by cosine"
        );
        existing.fields.insert("title".into(), field(8, Metric::Dot));
        let text = difference(&existing, &wanted).unwrap();
        assert!(text.contains("\"title\" of dimension 8 compared by dot"), "{text}");
    }
}
