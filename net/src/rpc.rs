//! What a service sees of a request, and the MessagePack encoding of bodies. Nothing here touches the network.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use vecino_model::NodeId;

use crate::error::{ErrorCode, RpcError};
use crate::message::PeerIdentity;

/// First kind that only nodes may ask; see [`crate::message`].
pub const PEER_KIND_MIN: u16 = 100;

/// Longest deadline of a request; a caller that asks for more gets this.
pub const DEADLINE_MAX: Duration = Duration::from_secs(3600);

/// Who asks, as TLS proved it.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

impl RequestContext {
    /// The context of a request. A deadline beyond [`DEADLINE_MAX`] is cut to that.
    pub fn new(caller: Caller, deadline: tokio::time::Instant, trace: TraceId) -> Self {
        Self { caller, deadline: deadline.min(tokio::time::Instant::now() + DEADLINE_MAX), trace }
    }
}

/// Answers requests. One value serves every connection of an endpoint.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// Who this node says that it is. Asked on every new connection: the mesh id appears once a mesh was joined.
    fn identity(&self) -> PeerIdentity;

    /// Answers one request. `body` and the answer are MessagePack maps ([`decode`], [`encode`]).
    ///
    /// The future is dropped when the caller goes away or `context.deadline` passes. [`crate::message::Hello`] never
    /// gets here, nor does a peer's kind from a client.
    async fn serve(&self, context: RequestContext, kind: u16, body: Bytes) -> Result<Vec<u8>, RpcError>;
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

/// Names one request of a client through every node that works on it: 16 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

tokio::task_local! {
    static CURRENT: TraceId;
}

impl TraceId {
    /// A new one.
    pub fn random() -> Self {
        Self(fastrand::u128(..).to_le_bytes())
    }

    /// Wraps 16 raw bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The trace of the request that the current task works on, if any.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|trace| *trace).ok()
    }

    /// Runs `work` under this trace: calls made in it carry the id on. A spawned task does not inherit it.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        CURRENT.scope(self, work).await
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceId({self})")
    }
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

    #[tokio::test]
    async fn a_trace_is_seen_inside_its_scope_only() {
        let trace = TraceId::random();
        assert_eq!(trace.scope(async { TraceId::current() }).await, Some(trace));
        assert_eq!(TraceId::current(), None);
    }
}
