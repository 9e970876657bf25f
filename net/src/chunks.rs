//! An answer that comes in chunks, as its caller reads it.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use crate::connection::{Connection, ExchangeError, exchange_failed, read_part_of};
use crate::error::{ErrorCode, RpcError};
use crate::frame::Part;
use crate::message::Rpc;
use crate::rpc;
use crate::stream::read_end;

/// The chunks that answer a request. Made by [`Endpoint::call_streaming`](crate::endpoint::Endpoint::call_streaming).
///
/// At most one chunk is decoded at a time; what the node sends beyond waits in the window of the stream, and the node with
/// it. Dropping this tells the node to stop.
#[must_use = "nothing is read until the next chunk is asked for, and dropping this ends the stream"]
pub struct Chunks<R> {
    recv: quinn::RecvStream,
    /// Names request and node in errors.
    what: String,
    until: Instant,
    patience: Duration,
    state: State,
    _connection: Arc<Connection>,
    _chunk: PhantomData<fn() -> R>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// A chunk or the end is next.
    Between,
    /// A part is being read; its place is lost with the call that reads it.
    Reading,
    /// Nothing comes any more.
    Ended,
}

impl<R: Rpc> Chunks<R> {
    pub(crate) fn new(
        recv: quinn::RecvStream,
        connection: Arc<Connection>,
        what: String,
        until: Instant,
        patience: Duration,
    ) -> Self {
        Self { recv, what, until, patience, state: State::Between, _connection: connection, _chunk: PhantomData }
    }

    /// The next chunk; absent once the node has sent all.
    ///
    /// A call that is dropped before it is done loses its place: every later one fails.
    ///
    /// # Errors
    /// What the node answered instead of a further chunk, or [`ErrorCode::Connection`], [`ErrorCode::Timeout`] and
    /// [`ErrorCode::Protocol`] when it did not. Nothing comes after an error.
    pub async fn try_next(&mut self) -> Result<Option<R::Reply>, RpcError> {
        match self.state {
            State::Between => self.state = State::Reading,
            State::Reading => return Err(self.nonsense("a chunk was given up half-read: ask again from the start")),
            State::Ended => return Ok(None),
        }
        let read = timeout_at(self.until, read_part_of(&mut self.recv, R::KIND)).await;
        self.state = State::Ended;
        let (part, body) = read
            .unwrap_or(Err(ExchangeError::Deadline { sent: true }))
            .map_err(|error| exchange_failed(error, &self.what, self.patience))?;
        match part {
            Part::Chunk => {
                let chunk = rpc::decode(R::NAME, &body)?;
                self.state = State::Between;
                Ok(Some(chunk))
            }
            Part::Error => Err(rpc::decode("RpcError", &body).unwrap_or_else(|error| error)),
            Part::End => self.finish(&body).await.map(|()| None),
            Part::Reply => Err(self.nonsense("one reply came where chunks were asked for")),
        }
    }

    async fn finish(&mut self, body: &Bytes) -> Result<(), RpcError> {
        if !body.is_empty() {
            return Err(self.nonsense("the end of the chunks has a body"));
        }
        let read = timeout_at(self.until, read_end(&mut self.recv, 0)).await;
        let read = read.unwrap_or(Ok(()));
        read.map_err(|error| exchange_failed(ExchangeError::Reply(error), &self.what, self.patience))
    }

    fn nonsense(&self, reason: &str) -> RpcError {
        RpcError::new(ErrorCode::Protocol, format_args!("{}: {reason}", self.what))
    }
}

impl<R> std::fmt::Debug for Chunks<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunks").field("what", &self.what).field("state", &self.state).finish_non_exhaustive()
    }
}
