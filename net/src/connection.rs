//! A connection that this endpoint dialled: its hello, and one exchange after the other on it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use quinn::ConnectionError;
use tokio::time::{Instant, timeout_at};
use vecino_model::{MeshId, NodeId};

use crate::dialler::Dialler;
use crate::error::{ErrorCode, Retry, RpcError};
use crate::frame::{self, REPLY_HEADER_BYTES, ReplyHeader, RequestHeader};
use crate::message::{Hello, HelloReply, PeerIdentity, Rpc};
use crate::node_id;
use crate::quic::{CloseCode, certificate, describe};
use crate::rpc::{self, TraceId};
use crate::stream::{ReadFrameError, ResetOnDrop, read_body, read_header};

/// A connection whose hello was accepted.
pub(crate) struct Connection {
    pub(crate) quic: quinn::Connection,
    pub(crate) peer: PeerIdentity,
    /// What this side's hello said. Once the node joins a mesh that differs, a new hello is due.
    pub(crate) mesh_told: Option<MeshId>,
}

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The address cannot be dialled from this socket.
    #[error("it cannot be dialled: {0}")]
    Address(String),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// Lost during handshake or hello; the text is the peer's or TLS's reason.
    #[error("{0}")]
    Lost(String),
    /// One side does not accept the other.
    #[error("{0}")]
    Refused(String),
}

/// Why an exchange has no reply.
#[derive(Debug)]
pub(crate) enum ExchangeError {
    /// The request never left: it may be sent again.
    NotSent(String),
    /// The connection was lost while waiting for the reply.
    Lost(String),
    /// The deadline passed; whether the request had left.
    Deadline { sent: bool },
    /// What came back is no reply.
    Protocol(String),
}

impl Connection {
    /// Whether requests can still be sent here by a node that belongs to `mesh`.
    pub(crate) fn is_usable(&self, mesh: Option<MeshId>) -> bool {
        self.quic.close_reason().is_none() && self.mesh_told == mesh
    }

    /// Sends one request and waits for its reply.
    pub(crate) async fn exchange(
        &self,
        kind: u16,
        body: Bytes,
        deadline: Instant,
        trace: TraceId,
    ) -> Result<Result<Bytes, RpcError>, ExchangeError> {
        exchange(&self.quic, kind, body, deadline, trace).await
    }
}

/// Dials, and introduces this endpoint. TLS 1.3 lets the dialling side believe that it is connected before the other
/// side has judged its certificate, so only the answer to the hello counts.
pub(crate) async fn dial(dialler: &Dialler, address: SocketAddr) -> Result<Connection, DialError> {
    let patience = dialler.dial_timeout;
    let deadline = Instant::now() + patience;
    let connecting = dialler
        .quic()
        .ok_or_else(|| DialError::Lost("this endpoint is closed".to_owned()))?
        .connect_with(dialler.config(), address, vecino_certs::NODE_SERVER_NAME)
        .map_err(|error| DialError::Address(error.to_string()))?;
    let quic = timeout_at(deadline, connecting)
        .await
        .map_err(|_| DialError::Silent(patience))?
        .map_err(|error| lost(&error))?;
    let own = dialler.identity();
    match introduce(dialler, &quic, own.as_ref(), deadline).await {
        Ok(peer) => Ok(Connection { quic, peer, mesh_told: own.and_then(|own| own.mesh_id) }),
        Err(error) => {
            quic.close(CloseCode::Refused.into(), error.to_string().as_bytes());
            Err(error)
        }
    }
}

async fn introduce(
    dialler: &Dialler,
    quic: &quinn::Connection,
    own: Option<&PeerIdentity>,
    deadline: Instant,
) -> Result<PeerIdentity, DialError> {
    let certificate = certificate(quic).map_err(DialError::Refused)?;
    let hello = Hello { peer: own.cloned(), software: dialler.software.clone() };
    let body = rpc::encode(&hello).map_err(|error| DialError::Refused(error.message))?;
    let reply = match exchange(quic, Hello::KIND, body.into(), deadline, TraceId::random()).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(error)) => return Err(DialError::Refused(error.message)),
        Err(ExchangeError::Deadline { .. }) => return Err(DialError::Silent(dialler.dial_timeout)),
        Err(ExchangeError::NotSent(reason) | ExchangeError::Lost(reason)) => {
            return Err(quic.close_reason().map_or(DialError::Lost(reason), |error| lost(&error)));
        }
        Err(ExchangeError::Protocol(reason)) => return Err(DialError::Refused(reason)),
    };
    let reply: HelloReply = rpc::decode("HelloReply", &reply).map_err(|error| DialError::Refused(error.message))?;
    judge_reply(&reply.identity, node_id(certificate.key_id), own).map_err(DialError::Refused)?;
    Ok(reply.identity)
}

/// Whether the node that answered is who it says, and of the same mesh.
fn judge_reply(answered: &PeerIdentity, proved: NodeId, own: Option<&PeerIdentity>) -> Result<(), String> {
    if answered.node_id != proved {
        return Err(format!("it claims to be node {} but its key is that of node {proved}", answered.node_id));
    }
    match (own.and_then(|own| own.mesh_id), answered.mesh_id) {
        (Some(ours), Some(theirs)) if ours != theirs => {
            Err(format!("it belongs to mesh {theirs}, this node to mesh {ours}"))
        }
        _ => Ok(()),
    }
}

async fn exchange(
    quic: &quinn::Connection,
    kind: u16,
    body: Bytes,
    deadline: Instant,
    trace: TraceId,
) -> Result<Result<Bytes, RpcError>, ExchangeError> {
    let (send, mut recv) = match timeout_at(deadline, quic.open_bi()).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(ExchangeError::NotSent(describe(&error))),
        Err(_) => return Err(ExchangeError::Deadline { sent: false }),
    };
    let mut send = ResetOnDrop::new(send);
    let talk = async {
        let body_bytes =
            frame::check_body_bytes(body.len()).map_err(|error| ExchangeError::Protocol(error.to_string()))?;
        let left = deadline.saturating_duration_since(Instant::now()).as_millis();
        let deadline_ms = u32::try_from(left).unwrap_or(u32::MAX);
        let header = RequestHeader { kind, body_bytes, deadline_ms, trace };
        match send.send(&header.encode(), body).await {
            // A stopped stream was refused before it was read: the reply says why.
            Ok(()) | Err(quinn::WriteError::Stopped(_)) => {}
            Err(quinn::WriteError::ConnectionLost(error)) => return Err(ExchangeError::Lost(describe(&error))),
            Err(error) => return Err(ExchangeError::Protocol(error.to_string())),
        }
        read_reply(&mut recv, kind).await.map_err(|error| match error {
            ReadFrameError::Stream(quinn::ReadError::ConnectionLost(error)) => ExchangeError::Lost(describe(&error)),
            error => ExchangeError::Protocol(error.to_string()),
        })
    };
    timeout_at(deadline, talk).await.unwrap_or(Err(ExchangeError::Deadline { sent: true }))
}

async fn read_reply(recv: &mut quinn::RecvStream, kind: u16) -> Result<Result<Bytes, RpcError>, ReadFrameError> {
    let header = ReplyHeader::decode(&read_header::<REPLY_HEADER_BYTES>(recv).await?)?;
    let (body, _) = read_body(recv, header.body_bytes as usize, None).await?;
    if header.error {
        return Ok(Err(rpc::decode("RpcError", &body).unwrap_or_else(|error| error)));
    }
    if header.kind != kind {
        let message = format_args!("the reply is to kind {} but kind {kind} was asked", header.kind);
        return Ok(Err(RpcError::new(ErrorCode::Protocol, message)));
    }
    Ok(Ok(body))
}

fn lost(error: &ConnectionError) -> DialError {
    match error {
        ConnectionError::TransportError(_)
        | ConnectionError::ConnectionClosed(_)
        | ConnectionError::ApplicationClosed(_) => DialError::Refused(describe(error)),
        error => DialError::Lost(describe(error)),
    }
}

/// A failed exchange as an error for the caller. `what` names request and node.
pub(crate) fn exchange_failed(error: ExchangeError, what: &str, patience: Duration) -> RpcError {
    match error {
        ExchangeError::NotSent(reason) => RpcError {
            code: ErrorCode::Connection,
            message: format!("{what} was not sent: {reason}"),
            retry: Retry::Safe,
        },
        ExchangeError::Lost(reason) => {
            RpcError::new(ErrorCode::Connection, format_args!("{what} has no reply: {reason}"))
        }
        ExchangeError::Deadline { sent } => RpcError {
            code: ErrorCode::Timeout,
            message: format!("{what} has no reply within {patience:?}"),
            retry: if sent { Retry::Unknown } else { Retry::Safe },
        },
        ExchangeError::Protocol(reason) => {
            RpcError { code: ErrorCode::Protocol, message: format!("{what}: {reason}"), retry: Retry::Unknown }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(id: u8, mesh: Option<u8>) -> PeerIdentity {
        PeerIdentity {
            node_id: NodeId::from_bytes([id; 16]),
            mesh_id: mesh.map(|mesh| MeshId([mesh; 16])),
            advertise: "127.0.0.1:1".into(),
        }
    }

    #[test]
    fn a_node_must_answer_with_the_id_of_its_key() {
        let error = judge_reply(&identity(1, None), NodeId::from_bytes([2; 16]), None).unwrap_err();
        assert!(error.contains("0101") && error.contains("0202"), "{error}");
    }

    #[test]
    fn meshes_must_not_differ_once_both_are_known() {
        let proved = NodeId::from_bytes([1; 16]);
        for (ours, theirs, fits) in [
            (None, None, true),
            (Some(1), None, true),
            (None, Some(1), true),
            (Some(1), Some(1), true),
            (Some(1), Some(2), false),
        ] {
            let judged = judge_reply(&identity(1, theirs), proved, Some(&identity(3, ours)));
            assert_eq!(judged.is_ok(), fits, "{ours:?} {theirs:?}: {judged:?}");
        }
    }
}
