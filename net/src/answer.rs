//! How answers are sent: one reply, an error, or chunk after chunk.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::debug;

use crate::error::{ErrorCode, RpcError};
use crate::frame::{self, PROTOCOL_VERSION, Part, ReplyHeader};
use crate::message::Kind;
use crate::rpc;
use crate::stream::{ReadFrameError, ResetOnDrop};

/// How long past its deadline an answer may still be on its way, and how long an acknowledgement is waited for.
pub(crate) const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// How long a caller may leave a chunk unread, and a service may make one, before the stream is given up: it holds a
/// permit meanwhile.
pub(crate) const CHUNK_WAIT: Duration = Duration::from_secs(60);

/// What a request is answered with, where it is not refused.
pub(crate) enum Answer {
    /// One reply.
    Reply(Vec<u8>),
    /// Chunks, all of which were sent.
    End,
}

/// Why chunks could not be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendChunksError {
    /// The caller takes no more, or is gone.
    #[error(transparent)]
    Write(#[from] quinn::WriteError),
    /// The caller does not read.
    #[error("the caller has not read a chunk for {CHUNK_WAIT:?}")]
    Unread,
    /// The service makes none.
    #[error("the node has made no chunk for {CHUNK_WAIT:?}")]
    Unmade,
}

/// Answers, and waits until the answer was acknowledged. A stream on which a frame was cut off is reset instead. What
/// is `held` for the request is dropped as soon as the answer was handed over.
pub(crate) async fn conclude<T>(send: &mut ResetOnDrop, kind: u16, result: Result<Answer, RpcError>, held: T) {
    if send.is_cut_off() {
        return debug!(kind, "answer cut off");
    }
    let answered = answer(send, kind, result, PROTOCOL_VERSION).await;
    drop(held);
    match answered {
        Ok(()) => drop(timeout(ANSWER_WAIT, send.settled()).await),
        Err(error) => debug!(kind, %error, "answer not sent"),
    }
}

/// Sends an answer or an error to a caller that speaks this `version` of the protocol, and ends the stream.
pub(crate) async fn answer(
    send: &mut ResetOnDrop,
    kind: u16,
    result: Result<Answer, RpcError>,
    version: u16,
) -> Result<(), quinn::WriteError> {
    let result = result.and_then(|answer| match answer {
        Answer::End => Ok((Part::End, Vec::new(), 0)),
        Answer::Reply(body) => match frame::check_body_bytes(body.len()) {
            Ok(body_bytes) => Ok((Part::Reply, body, body_bytes)),
            Err(error) => {
                Err(RpcError::invalid(format_args!("the answer to {} is too large: {error}; ask for less", name(kind))))
            }
        },
    });
    let (part, body, body_bytes) = result.unwrap_or_else(|error| {
        let body = rpc::encode(&error).unwrap_or_default();
        let body_bytes = u32::try_from(body.len()).unwrap_or_default();
        (Part::Error, body, body_bytes)
    });
    send.send(&ReplyHeader::new(kind, part, body_bytes).encode_as(version), body.into()).await
}

/// Sends chunks as they come, until there are no more. A caller that does not read holds them up: the window of the stream
/// is full then, and so is the channel.
pub(crate) async fn send_chunks(
    send: &mut ResetOnDrop,
    kind: u16,
    mut chunks: mpsc::Receiver<Bytes>,
) -> Result<(), SendChunksError> {
    while let Some(chunk) = timeout(CHUNK_WAIT, chunks.recv()).await.map_err(|_| SendChunksError::Unmade)? {
        // Whoever puts chunks into the channel has checked their size.
        let body_bytes = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
        let header = ReplyHeader::new(kind, Part::Chunk, body_bytes).encode();
        timeout(CHUNK_WAIT, send.send_part(&header, chunk)).await.map_err(|_| SendChunksError::Unread)??;
    }
    Ok(())
}

/// Refuses a request that could not be read, in a version that its caller understands.
pub(crate) async fn refuse(send: &mut ResetOnDrop, error: ReadFrameError) {
    let version = if let ReadFrameError::Frame(error) = &error { error.answer_version() } else { PROTOCOL_VERSION };
    // A caller that takes no answer holds nothing up.
    match timeout(ANSWER_WAIT, answer(send, 0, Err(unreadable(error)), version)).await {
        Ok(Ok(())) => drop(timeout(ANSWER_WAIT, send.settled()).await),
        Ok(Err(error)) => debug!(%error, "refusal not sent"),
        Err(_) => debug!("refusal not taken within {ANSWER_WAIT:?}"),
    }
}

/// A request that could not be read, as its caller is told.
pub(crate) fn unreadable(error: ReadFrameError) -> RpcError {
    match error {
        ReadFrameError::Frame(error) => error.into(),
        ReadFrameError::Budget(error) => error.into(),
        error => RpcError::new(ErrorCode::Protocol, error),
    }
}

/// A request's name in errors.
pub(crate) fn name(kind: u16) -> &'static str {
    Kind::of(kind).map_or("an unknown request", |kind| kind.name)
}
