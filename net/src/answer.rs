//! How answers are sent.

use std::time::Duration;

use tokio::time::timeout;
use tracing::debug;

use crate::error::{ErrorCode, RpcError};
use crate::frame::{self, ReplyHeader};
use crate::message::KINDS;
use crate::rpc;
use crate::stream::{ReadFrameError, ResetOnDrop};

/// How long past its deadline an answer may still be on its way, and how long an acknowledgement is waited for.
pub(crate) const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Answers, and waits until the answer was acknowledged.
pub(crate) async fn conclude(send: &mut ResetOnDrop, kind: u16, result: Result<Vec<u8>, RpcError>) {
    match answer(send, kind, result).await {
        Ok(()) => drop(timeout(ANSWER_WAIT, send.settled()).await),
        Err(error) => debug!(kind, %error, "answer not sent"),
    }
}

/// Sends a reply or an error.
pub(crate) async fn answer(
    send: &mut ResetOnDrop,
    kind: u16,
    result: Result<Vec<u8>, RpcError>,
) -> Result<(), quinn::WriteError> {
    let result = result.and_then(|body| match frame::check_body_bytes(body.len()) {
        Ok(body_bytes) => Ok((body, body_bytes)),
        Err(error) => {
            Err(RpcError::invalid(format_args!("the answer to {} is too large: {error}; ask for less", name(kind))))
        }
    });
    let (error, (body, body_bytes)) = match result {
        Ok(answer) => (false, answer),
        Err(error) => {
            let body = rpc::encode(&error).unwrap_or_default();
            let body_bytes = u32::try_from(body.len()).unwrap_or_default();
            (true, (body, body_bytes))
        }
    };
    send.send(&ReplyHeader { kind, error, body_bytes }.encode(), body.into()).await
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
    KINDS.binary_search_by_key(&kind, |(kind, _)| *kind).map_or("an unknown request", |place| KINDS[place].1)
}
