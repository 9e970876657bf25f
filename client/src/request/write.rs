//! Putting and deleting points.

use std::future::IntoFuture;

use vecino_model::{Level, Version};
use vecino_net::message::{Delete, Put};

use super::reply::Reply;
use crate::error::ClientError;
use crate::report::WriteReport;
use crate::session::Session;
use crate::write::Batch;

/// Puts points; made by [`Collection::put`](crate::Collection::put), and awaited.
pub type PutRequest = WriteRequest<Put>;

/// Deletes points; made by [`Collection::delete`](crate::Collection::delete), and awaited.
pub type DeleteRequest = WriteRequest<Delete>;

/// A put or delete. Awaited, it gives the version of each point, in their order, or an error unless *every* point was
/// written; [`each`](Self::each) gives the outcome of each point instead.
///
/// Points that too few replicas took are written again a few times while time is left, and so are those whose outcome the
/// mesh cannot tell, unless [`repeat_unknown`](Self::repeat_unknown) says otherwise.
#[derive(Clone, Debug)]
#[must_use = "nothing is written until it is awaited"]
pub struct WriteRequest<B> {
    session: Session,
    message: B,
    repeat_unknown: bool,
}

/// A put or delete whose answer is the outcome of each point; made by [`WriteRequest::each`], and awaited.
#[derive(Clone, Debug)]
#[must_use = "nothing is written until it is awaited"]
pub struct EachRequest<B>(WriteRequest<B>);

impl<B: Batch> WriteRequest<B> {
    pub(crate) fn new(session: Session, message: B) -> Self {
        Self { session, message, repeat_unknown: true }
    }

    /// How many durable replicas to wait for; a majority unless set.
    pub fn level(self, level: Level) -> Self {
        Self { message: self.message.at_level(level), ..self }
    }

    /// Whether a write whose outcome is unknown is made again; it is unless switched off.
    ///
    /// The versions of its points are asked for first, which is a round trip more, and are kept over every attempt. So a
    /// write that is made again takes effect once, and never undoes what another client wrote in between. Switched off,
    /// the node that is asked gives the versions, and an outcome that is unknown is told and left as it is.
    pub fn repeat_unknown(self, repeat_unknown: bool) -> Self {
        Self { repeat_unknown, ..self }
    }

    /// The outcome of each point, instead of an error where some were not written.
    pub fn each(self) -> EachRequest<B> {
        EachRequest(self)
    }

    async fn send(self) -> Result<WriteReport, ClientError> {
        let Self { session, message, repeat_unknown } = self;
        let outcomes = session.write(&message, repeat_unknown).await?;
        Ok(WriteReport::new(message.ids(), outcomes))
    }
}

/// # Errors
/// [`ClientError::NotWritten`] unless every point was written: it holds the outcome of each. Other errors where the batch
/// as a whole was refused or not answered.
impl<B: Batch> IntoFuture for WriteRequest<B> {
    type Output = Result<Vec<Version>, ClientError>;
    type IntoFuture = Reply<Vec<Version>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.send().await?.all_written() })
    }
}

/// # Errors
/// When the batch as a whole was refused or not answered.
impl<B: Batch> IntoFuture for EachRequest<B> {
    type Output = Result<WriteReport, ClientError>;
    type IntoFuture = Reply<WriteReport>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.0.send())
    }
}
