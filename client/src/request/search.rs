//! Finding the points that are most like a vector or a stored point.

use std::future::IntoFuture;

use vecino_model::{DEFAULT_FIELD, Level};
use vecino_net::message::{Query, Search, SearchReply};

use super::reply::Reply;
use crate::error::ClientError;
use crate::session::{Session, nonsense};

/// Hits of a search, unless it says otherwise.
pub const DEFAULT_K: u32 = 10;

/// A search; made by [`Collection::search`](crate::Collection::search) or
/// [`Collection::search_like`](crate::Collection::search_like), and awaited.
#[derive(Clone, Debug)]
#[must_use = "nothing is asked until it is awaited"]
pub struct SearchRequest {
    session: Session,
    message: Search,
}

impl SearchRequest {
    pub(crate) fn new(session: Session, collection: String, query: Query) -> Self {
        let message = Search {
            collection,
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
        };
        Self { session, message }
    }

    /// How many hits are wanted; [`DEFAULT_K`] unless set.
    pub fn k(mut self, k: u32) -> Self {
        self.message.k = k;
        self
    }

    /// How many candidates the graph walk keeps: more is slower and finds more. The nodes choose unless it is set.
    pub fn ef(mut self, ef: impl Into<Option<u32>>) -> Self {
        self.message.ef = ef.into();
        self
    }

    /// Only hits at least this good: a least similarity for cosine and dot, a greatest distance for the others.
    pub fn threshold(mut self, threshold: impl Into<Option<f32>>) -> Self {
        self.message.threshold = threshold.into();
        self
    }

    /// The vector field to search; the unnamed one unless set.
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.message.field = field.into();
        self
    }

    /// Replicas of every range to ask.
    pub fn level(mut self, level: Level) -> Self {
        self.message.level = level;
        self
    }

    /// Whether payloads are wanted; they are unless switched off.
    pub fn with_payload(mut self, with_payload: bool) -> Self {
        self.message.with_payload = with_payload;
        self
    }

    /// Whether vectors are wanted; they are not unless switched on.
    pub fn with_vectors(mut self, with_vectors: bool) -> Self {
        self.message.with_vectors = with_vectors;
        self
    }

    /// Whether an answer from a part of the ring will do where the rest has no live replica.
    pub fn allow_partial(mut self, allow_partial: bool) -> Self {
        self.message.allow_partial = allow_partial;
        self
    }

    /// Whether every vector is to be compared, without the graph.
    pub fn exact(mut self, exact: bool) -> Self {
        self.message.exact = exact;
        self
    }
}

/// The same question, whichever client asks it.
impl PartialEq for SearchRequest {
    fn eq(&self, other: &Self) -> bool {
        let Search {
            collection,
            query,
            field,
            k,
            ef,
            threshold,
            level,
            with_payload,
            with_vectors,
            allow_partial,
            exact,
        } = &self.message;
        let other = &other.message;
        (collection, query, field) == (&other.collection, &other.query, &other.field)
            && (k, ef, threshold, level) == (&other.k, &other.ef, &other.threshold, &other.level)
            && (with_payload, with_vectors) == (&other.with_payload, &other.with_vectors)
            && (allow_partial, exact) == (&other.allow_partial, &other.exact)
    }
}

/// # Errors
/// When there is no such collection or point, or a part of the ring cannot be searched and a partial answer was not
/// allowed.
impl IntoFuture for SearchRequest {
    type Output = Result<SearchReply, ClientError>;
    type IntoFuture = Reply<SearchReply>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let bytes = match &self.message.query {
                Query::Vector(vector) => 4 * vector.0.len(),
                Query::Id(id) => id.bytes(),
            };
            let (found, node) = self.session.ask(&self.message, bytes).await?;
            found.decode().map_err(|error| nonsense::<Search>(node, format_args!("a hit whose {error}")))
        })
    }
}
