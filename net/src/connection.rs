//! A connection that this endpoint dialled: its hello, and one exchange after the other on it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::ConnectionError;
use tokio::time::{Instant, timeout_at};
use vecino_model::{MeshId, NodeId};

use crate::dialler::Dialler;
use crate::error::{ErrorCode, Retry, RpcError};
use crate::frame::{self, FrameError, Part, REPLY_HEADER_BYTES, ReplyHeader, RequestHeader};
use crate::message::{ConnectionClass, Hello, HelloReply, PeerIdentity, Rpc};
use crate::node_id;
use crate::quic::{CloseCode, certificate, describe};
use crate::refusal::{Refusal, same_mesh};
use crate::rpc::{self, Service, TraceId};
use crate::stream::{ReadFrameError, ResetOnDrop, read_end, read_header, read_part};

/// A connection whose hello was accepted.
pub(crate) struct Connection {
    pub(crate) quic: quinn::Connection,
    pub(crate) peer: PeerIdentity,
    /// What this side's hello said. Once the node joins a mesh that differs, a new hello is due.
    pub(crate) mesh_told: Option<MeshId>,
    /// Who tells this node's clock with each request; nothing where this is no node or the other side does not take it.
    teller: Option<Arc<dyn Service>>,
}

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// This endpoint was closed.
    #[error("this endpoint is closed")]
    Closed,
    /// The address cannot be dialled from this socket.
    #[error("it cannot be dialled: {0}")]
    Address(#[source] quinn::ConnectError),
    /// No answer in time.
    #[error("no answer within {patience:?}")]
    Silent { patience: Duration },
    /// Lost during handshake or hello.
    #[error("{}", describe(.0))]
    Lost(#[source] ConnectionError),
    /// The attempt panicked; the log says where.
    #[error("{message}")]
    Panicked { message: String },
    /// The node takes no further connection at present.
    #[error("{0}")]
    Busy(#[source] RpcError),
    /// One side does not accept the other.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Why an exchange has no reply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// The request never left: it may be sent again.
    #[error("{}", describe(.0))]
    NotSent(#[source] ConnectionError),
    /// The connection was lost while waiting for the reply.
    #[error("{}", describe(.0))]
    Lost(#[source] ConnectionError),
    /// The deadline passed; whether the request had left.
    #[error("no reply before the deadline")]
    Deadline { sent: bool },
    /// The request is too large.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream took no request.
    #[error(transparent)]
    Write(quinn::WriteError),
    /// What came back is no reply.
    #[error(transparent)]
    Reply(ReadFrameError),
    /// What came back is the reply to something else.
    #[error("the reply is to kind {answered} but kind {asked} was asked")]
    OtherKind { answered: u16, asked: u16 },
}

impl ExchangeError {
    /// What reading an answer failed with.
    fn of_reading(error: ReadFrameError) -> Self {
        match error {
            ReadFrameError::Stream(quinn::ReadError::ConnectionLost(error)) => Self::Lost(error),
            error => Self::Reply(error),
        }
    }
}

impl Connection {
    /// Whether requests can still be sent here by a node that belongs to `mesh`.
    pub(crate) fn is_usable(&self, mesh: Option<MeshId>) -> bool {
        self.quic.close_reason().is_none() && self.mesh_told == mesh
    }

    /// Sends one request and waits for its reply.
    pub(crate) async fn exchange(&self, request: &Outgoing) -> Result<Result<Bytes, RpcError>, ExchangeError> {
        exchange(&self.quic, request, self.teller.as_deref()).await
    }

    /// What is told of this node's clock with what is sent now.
    pub(crate) fn clock_told(&self) -> u32 {
        clock_told(self.teller.as_deref())
    }

    /// Sends one request whose answer comes in chunks.
    pub(crate) async fn begin(&self, request: &Outgoing) -> Result<quinn::RecvStream, ExchangeError> {
        let (mut send, recv) = open(&self.quic, request.deadline).await?;
        let sent = timeout_at(request.deadline, send_request(&mut send, request, self.teller.as_deref())).await;
        sent.unwrap_or(Err(ExchangeError::Deadline { sent: true }))?;
        Ok(recv)
    }
}

/// A request as it is sent.
pub(crate) struct Outgoing {
    /// Size of the body, time that is left and clock are filled in when it is sent.
    pub(crate) header: RequestHeader,
    pub(crate) body: Bytes,
    pub(crate) deadline: Instant,
}

/// Dials, and introduces this endpoint. TLS 1.3 lets the dialling side believe that it is connected before the other
/// side has judged its certificate, so only the answer to the hello counts.
pub(crate) async fn dial(
    dialler: &Dialler,
    address: SocketAddr,
    class: ConnectionClass,
) -> Result<Connection, DialError> {
    let patience = dialler.dial_timeout;
    let deadline = Instant::now() + patience;
    let connecting = dialler
        .quic()
        .ok_or(DialError::Closed)?
        .connect_with(dialler.config(), address, vecino_certs::NODE_SERVER_NAME)
        .map_err(DialError::Address)?;
    let quic = timeout_at(deadline, connecting).await.map_err(|_| DialError::Silent { patience })?.map_err(lost)?;
    let own = dialler.identity();
    match introduce(dialler, &quic, own.as_ref(), class, deadline).await {
        Ok(reply) => {
            let teller = dialler.service().filter(|_| reply.takes_clock).map(Arc::clone);
            let mesh_told = own.and_then(|own| own.mesh_id);
            Ok(Connection { quic, peer: reply.identity, mesh_told, teller })
        }
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
    class: ConnectionClass,
    deadline: Instant,
) -> Result<HelloReply, DialError> {
    let certificate = certificate(quic).map_err(Refusal::from)?;
    let hello = Hello { peer: own.cloned(), software: dialler.software.clone(), class, tells_clock: own.is_some() };
    let body = rpc::encode(&hello).map_err(Refusal::from)?;
    let mut header = RequestHeader::new(Hello::KIND, 0, 0, TraceId::random());
    header.epoch = dialler.epoch();
    let reply = match exchange(quic, &Outgoing { header, body: body.into(), deadline }, None).await {
        Ok(Err(error)) if error.code == ErrorCode::Overloaded => return Err(DialError::Busy(error)),
        Ok(reply) => reply.map_err(Refusal::from)?,
        Err(ExchangeError::Deadline { .. }) => return Err(DialError::Silent { patience: dialler.dial_timeout }),
        Err(ExchangeError::NotSent(error) | ExchangeError::Lost(error)) => {
            // Why the connection was closed says more than what failed on it.
            return Err(quic.close_reason().map_or(DialError::Lost(error), lost));
        }
        Err(ExchangeError::Frame(error)) => return Err(Refusal::Frame(error).into()),
        Err(ExchangeError::Write(error)) => return Err(Refusal::NotSent(error).into()),
        Err(ExchangeError::Reply(error)) => return Err(Refusal::of_reading(error).into()),
        Err(ExchangeError::OtherKind { answered, .. }) => return Err(Refusal::OtherKind { answered }.into()),
    };
    let reply: HelloReply = rpc::decode("HelloReply", &reply).map_err(Refusal::from)?;
    judge_reply(&reply.identity, node_id(certificate.key_id), own)?;
    Ok(reply)
}

/// Whether the node that answered is the one it says, and of the same mesh.
fn judge_reply(answered: &PeerIdentity, proved: NodeId, own: Option<&PeerIdentity>) -> Result<(), Refusal> {
    if answered.node_id != proved {
        return Err(Refusal::ForeignId { claimed: answered.node_id, proved });
    }
    own.map_or(Ok(()), |own| same_mesh(answered.node_id, answered.mesh_id, own))
}

async fn open(quic: &quinn::Connection, deadline: Instant) -> Result<(ResetOnDrop, quinn::RecvStream), ExchangeError> {
    match timeout_at(deadline, quic.open_bi()).await {
        Ok(Ok((send, recv))) => Ok((ResetOnDrop::new(send), recv)),
        Ok(Err(error)) => Err(ExchangeError::NotSent(error)),
        Err(_) => Err(ExchangeError::Deadline { sent: false }),
    }
}

async fn exchange(
    quic: &quinn::Connection,
    request: &Outgoing,
    teller: Option<&dyn Service>,
) -> Result<Result<Bytes, RpcError>, ExchangeError> {
    let (mut send, mut recv) = open(quic, request.deadline).await?;
    let talk = async {
        send_request(&mut send, request, teller).await?;
        let kind = request.header.kind;
        let (part, body) = read_part_of(&mut recv, kind).await?;
        read_end(&mut recv, body.len()).await.map_err(ExchangeError::of_reading)?;
        Ok(match part {
            Part::Reply => Ok(body),
            Part::Error => Err(rpc::decode("RpcError", &body).unwrap_or_else(|error| error.with_retry(Retry::Unknown))),
            other => {
                let message = format_args!("kind {kind} has one reply, and a part of another kind came: {other:?}");
                Err(RpcError::new(ErrorCode::Protocol, message).with_retry(Retry::Unknown))
            }
        })
    };
    timeout_at(request.deadline, talk).await.unwrap_or(Err(ExchangeError::Deadline { sent: true }))
}

fn clock_told(teller: Option<&dyn Service>) -> u32 {
    teller.map_or(0, |service| service.clock_told())
}

async fn send_request(
    send: &mut ResetOnDrop,
    request: &Outgoing,
    teller: Option<&dyn Service>,
) -> Result<(), ExchangeError> {
    let Outgoing { header, body, deadline } = request;
    let left = deadline.saturating_duration_since(Instant::now()).as_millis();
    let mut header = *header;
    header.body_bytes = frame::check_body_bytes(body.len())?;
    header.deadline_ms = u32::try_from(left).unwrap_or(u32::MAX);
    header.clock = clock_told(teller);
    match send.send(&header.encode(), body.clone()).await {
        // A stopped stream was refused before it was read: the reply says why.
        Ok(()) | Err(quinn::WriteError::Stopped(_)) => Ok(()),
        Err(quinn::WriteError::ConnectionLost(error)) => Err(ExchangeError::Lost(error)),
        Err(error) => Err(ExchangeError::Write(error)),
    }
}

/// Reads the next part of the answer to a request of this kind.
pub(crate) async fn read_part_of(recv: &mut quinn::RecvStream, kind: u16) -> Result<(Part, Bytes), ExchangeError> {
    let read = async {
        let header = ReplyHeader::decode(&read_header::<REPLY_HEADER_BYTES>(recv).await?)?;
        let body = read_part(recv, header.body_bytes as usize, None).await?;
        Ok((header, body))
    };
    let (header, body) = read.await.map_err(ExchangeError::of_reading)?;
    // An error may be about a request of which the node could not read the kind.
    if header.kind != kind && header.part != Part::Error {
        return Err(ExchangeError::OtherKind { answered: header.kind, asked: kind });
    }
    Ok((header.part, body))
}

fn lost(error: ConnectionError) -> DialError {
    match error {
        // What a node says to whoever comes when it has as many connections as it takes.
        ConnectionError::ConnectionClosed(ref close)
            if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED =>
        {
            DialError::Lost(error)
        }
        ConnectionError::TransportError(_)
        | ConnectionError::ConnectionClosed(_)
        | ConnectionError::ApplicationClosed(_) => Refusal::Connection(error).into(),
        error => DialError::Lost(error),
    }
}

/// A failed exchange as an error for the caller. `what` names request and node.
pub(crate) fn exchange_failed(error: ExchangeError, what: &str, patience: Duration) -> RpcError {
    let (code, retry) = match error {
        ExchangeError::NotSent(_) => (ErrorCode::Connection, Retry::Safe),
        ExchangeError::Lost(_) => (ErrorCode::Connection, Retry::Unknown),
        ExchangeError::Deadline { sent: true } => (ErrorCode::Timeout, Retry::Unknown),
        ExchangeError::Deadline { sent: false } => (ErrorCode::Timeout, Retry::Safe),
        ExchangeError::Frame(_)
        | ExchangeError::Write(_)
        | ExchangeError::Reply(_)
        | ExchangeError::OtherKind { .. } => (ErrorCode::Protocol, Retry::Unknown),
    };
    let message = match error {
        ExchangeError::NotSent(_) => format!("{what} was not sent: {error}"),
        ExchangeError::Lost(_) => format!("{what} has no reply: {error}"),
        ExchangeError::Deadline { .. } => format!("{what} has no reply within {patience:?}"),
        error => format!("{what}: {error}"),
    };
    RpcError { code, message, retry }
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
        let error = judge_reply(&identity(1, None), NodeId::from_bytes([2; 16]), None).unwrap_err().to_string();
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
