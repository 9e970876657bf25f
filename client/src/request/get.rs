//! Reading points by their ids.

use std::future::IntoFuture;

use vecino_model::{Level, PointId, RawStoredPoint, StoredPoint};
use vecino_net::message::Get;

use super::reply::Reply;
use crate::error::ClientError;
use crate::session::{Session, nonsense};

/// Reads points; made by [`Collection::get`](crate::Collection::get), and awaited. The answer has an entry for each id, in
/// their order, which is absent where the point is.
#[derive(Clone, Debug)]
#[must_use = "nothing is asked until it is awaited"]
pub struct GetRequest {
    session: Session,
    message: Get,
}

/// Reads one point; made by [`Collection::get_one`](crate::Collection::get_one), and awaited. The answer is absent where the
/// point is.
#[derive(Clone, Debug)]
#[must_use = "nothing is asked until it is awaited"]
pub struct GetOneRequest(GetRequest);

impl GetRequest {
    pub(crate) fn new(session: Session, collection: String, ids: Vec<PointId>) -> Self {
        Self { session, message: Get { collection, ids, level: Level::default(), with_vectors: true } }
    }

    /// Replicas to ask.
    pub fn level(mut self, level: Level) -> Self {
        self.message.level = level;
        self
    }

    /// Whether vectors are wanted; they are unless switched off.
    pub fn with_vectors(mut self, with_vectors: bool) -> Self {
        self.message.with_vectors = with_vectors;
        self
    }

    async fn send(self) -> Result<Vec<Option<StoredPoint>>, ClientError> {
        let Self { session, message } = self;
        let bytes = message.ids.iter().map(PointId::bytes).sum();
        let (found, node) = session.ask(&message, bytes).await?;
        if found.len() != message.ids.len() {
            return Err(nonsense::<Get>(node, format_args!("{} points for {} ids", found.len(), message.ids.len())));
        }
        let decoded = found.into_iter().map(|point| point.map(RawStoredPoint::decode).transpose());
        decoded.collect::<Result<_, _>>().map_err(|error| nonsense::<Get>(node, format_args!("a point whose {error}")))
    }
}

impl GetOneRequest {
    pub(crate) fn new(session: Session, collection: String, id: PointId) -> Self {
        Self(GetRequest::new(session, collection, vec![id]))
    }

    /// Replicas to ask.
    pub fn level(self, level: Level) -> Self {
        Self(self.0.level(level))
    }

    /// Whether vectors are wanted; they are unless switched off.
    pub fn with_vectors(self, with_vectors: bool) -> Self {
        Self(self.0.with_vectors(with_vectors))
    }
}

/// # Errors
/// When there is no such collection, or too few replicas answer.
impl IntoFuture for GetRequest {
    type Output = Result<Vec<Option<StoredPoint>>, ClientError>;
    type IntoFuture = Reply<Vec<Option<StoredPoint>>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// # Errors
/// When there is no such collection, or too few replicas answer.
impl IntoFuture for GetOneRequest {
    type Output = Result<Option<StoredPoint>, ClientError>;
    type IntoFuture = Reply<Option<StoredPoint>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { Ok(self.0.send().await?.pop().flatten()) })
    }
}
