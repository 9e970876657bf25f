//! What a service sees of a request, and the MessagePack encoding of bodies. Nothing here touches the network.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use vecino_model::NodeId;

use crate::error::{ErrorCode, RpcError};
use crate::frame;
use crate::message::{PeerIdentity, Rpc};
pub use crate::trace::TraceId;

/// First kind that only nodes may ask; see [`crate::message`].
pub const PEER_KIND_MIN: u16 = 100;

/// Longest deadline of a request; a caller that asks for more gets this, and only a minute
/// ([`BRIEF_DEADLINE_MAX`](crate::admission::BRIEF_DEADLINE_MAX)) where the request has one reply and does not take as
/// long as there is data.
pub const DEADLINE_MAX: Duration = Duration::from_secs(3600);

/// Who asks, as TLS proved it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Caller {
    /// A node of the mesh.
    Peer(NodeId),
    /// A client, by the name in its certificate.
    Client(String),
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(id) => write!(f, "node {}", id.short()),
            Self::Client(name) => write!(f, "client {name:?}"),
        }
    }
}

/// What comes with a request beside its body, whichever door it came in by. Every step of the work that needs to know
/// who asks, until when, or for which request is handed it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RequestContext {
    /// Who asks.
    pub caller: Caller,
    /// When the caller stops waiting; the answer is worthless afterwards.
    pub deadline: tokio::time::Instant,
    /// Ties the log lines of one request together over all nodes.
    pub trace: TraceId,
    /// The last agreed change of the mesh that the caller knows of; 0 before the first.
    pub epoch: u64,
}

impl RequestContext {
    /// The context of a request of epoch 0. A deadline beyond [`DEADLINE_MAX`] is cut to that.
    pub fn new(caller: Caller, deadline: tokio::time::Instant, trace: TraceId) -> Self {
        Self { caller, deadline: deadline.min(tokio::time::Instant::now() + DEADLINE_MAX), trace, epoch: 0 }
    }

    /// The same with another epoch.
    pub fn with_epoch(self, epoch: u64) -> Self {
        Self { epoch, ..self }
    }
}

/// Answers requests. One value serves every connection of an endpoint.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// Who this node says that it is. Asked on every new connection: the mesh id appears once a mesh was joined.
    fn identity(&self) -> PeerIdentity;

    /// What is told other nodes of this node's wall clock with each request, at the moment when that is sent; 0 tells nothing.
    /// Only nodes are told that have said that they understand it. It must not block.
    fn clock_told(&self) -> u32 {
        0
    }

    /// A node of the authority told this of its wall clock with what has arrived just now, gossip included. It must not
    /// block.
    fn clock_heard(&self, _node: NodeId, _told: u32) {}

    /// Answers one request. `body` and the answer are MessagePack maps ([`decode`], [`encode`]).
    ///
    /// The future is dropped when the caller goes away or `context.deadline` passes. [`crate::message::Hello`] never
    /// gets here, nor does a peer's kind from a client.
    async fn serve(&self, context: RequestContext, kind: u16, body: Bytes) -> Result<Vec<u8>, RpcError>;

    /// Answers one request whose kind is answered in chunks, each of which goes into `chunks`.
    ///
    /// The future is dropped as that of [`serve`](Self::serve) is. A caller that reads slowly is waited for.
    async fn serve_chunks(
        &self,
        _context: RequestContext,
        kind: u16,
        _body: Bytes,
        _chunks: ChunkSender,
    ) -> Result<(), RpcError> {
        Err(RpcError::new(ErrorCode::Protocol, format_args!("kind {kind} is not answered here")))
    }
}

/// Most chunks of one answer that wait to be sent: one can be made while another is on its way.
const CHUNKS_WAITING_MAX: usize = 1;

/// Takes the chunks that answer a request.
#[derive(Debug)]
pub struct ChunkSender(mpsc::Sender<Bytes>);

impl ChunkSender {
    /// A sender, and where its chunks arrive.
    pub(crate) fn channel() -> (Self, mpsc::Receiver<Bytes>) {
        let (sender, receiver) = mpsc::channel(CHUNKS_WAITING_MAX);
        (Self(sender), receiver)
    }

    /// Sends one chunk of the answer to an `R`, once there is room for it.
    ///
    /// # Errors
    /// When the chunk is too large for a frame, or the caller takes no more.
    pub async fn send<R: Rpc>(&self, chunk: &R::Reply) -> Result<(), RpcError> {
        self.send_encoded(R::NAME, encode(chunk)?).await
    }

    /// Sends one chunk as [`send`](Self::send) does that is encoded already. `name` names the request in errors.
    pub(crate) async fn send_encoded(&self, name: &str, chunk: Vec<u8>) -> Result<(), RpcError> {
        frame::check_body_bytes(chunk.len()).map_err(|error| {
            RpcError::invalid(format_args!(
                "a chunk of the answer to {name} is too large: {error}; ask for less at once"
            ))
        })?;
        let gone = |_| RpcError::new(ErrorCode::Connection, format_args!("the caller of {name} takes no more"));
        self.0.send(chunk.into()).await.map_err(gone)
    }
}

/// Encodes a body: a map with field names, so that older nodes can skip what they do not know.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, RpcError> {
    rmp_serde::to_vec_named(value)
        .map_err(|error| RpcError::new(ErrorCode::Internal, format_args!("a message could not be encoded: {error}")))
}

/// Decodes a body; `kind_name` names it in the error.
pub fn decode<T: DeserializeOwned>(kind_name: &str, body: &[u8]) -> Result<T, RpcError> {
    rmp_serde::from_slice(body).map_err(|error| {
        RpcError::new(
            ErrorCode::Protocol,
            format_args!("the {} bytes of a {kind_name} could not be decoded: {error}", body.len()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{CatalogFetch, Hello};

    #[test]
    fn a_body_of_another_kind_is_refused_by_name() {
        let body = encode(&CatalogFetch {}).unwrap();
        let error = decode::<Hello>("Hello", &body).unwrap_err();
        assert_eq!(error.code, ErrorCode::Protocol);
        assert!(error.message.contains("Hello"), "{error}");
    }
}
