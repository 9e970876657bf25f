//! The accepting side: which callers may connect, and how one request after the other is served.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::ConnectionError;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};
use vecino_supervise::caught_async;

use crate::admission::{Admission, Admitted};
use crate::answer::{ANSWER_WAIT, Answer, conclude, name, refuse, send_chunks, unreadable};
use crate::error::{ErrorCode, RpcError};
use crate::frame::{FrameError, REQUEST_HEADER_BYTES, RequestHeader, StreamKind};
use crate::greeting::{Accepted, Greeting, greet};
use crate::log_limit::LogLimit;
use crate::message::{GOSSIP_KIND, Hello, HelloReply, Kind, Rpc};
use crate::pool::Pool;
use crate::quic::{CloseCode, describe};
use crate::refusal::{Refusal, same_mesh};
use crate::rpc::{self, Caller, ChunkSender, PEER_KIND_MIN, RequestContext, Service};
use crate::stream::{CANCELLED, ReadFrameError, ResetOnDrop, read_body, read_header};

/// How long a new connection may take to finish its handshake, and then to say hello.
const HELLO_WAIT: Duration = Duration::from_secs(5);
/// How long a stream may take to bring its header.
const HEADER_WAIT: Duration = Duration::from_secs(5);

/// Takes the streams in one direction that peers open: gossip.
pub(crate) trait UniSink: Send + Sync {
    /// Takes one message of `body_bytes` off a stream that the peer at `from` opened, behind its header.
    fn receive(
        self: Arc<Self>,
        from: SocketAddr,
        stream: quinn::RecvStream,
        body_bytes: usize,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// What accepted connections are served with.
pub(crate) struct Server<S> {
    pub(crate) service: Arc<dyn Service>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) sink: Arc<S>,
    pub(crate) max_connections: usize,
}

/// Accepts connections until the endpoint is closed.
pub(crate) async fn accept<S: UniSink + 'static>(server: Arc<Server<S>>, quic: quinn::Endpoint) {
    while let Some(incoming) = quic.accept().await {
        let remote = incoming.remote_address();
        if quic.open_connections() >= server.max_connections {
            if server.pool.dialler().log_limit.allows("connections") {
                warn!(%remote, limit = server.max_connections, "connection refused: too many are open");
            }
            incoming.refuse();
            continue;
        }
        // Half full: from here on only a caller that can receive at its address gets a place.
        if quic.open_connections() >= server.max_connections.div_ceil(2) && !incoming.remote_address_validated() {
            if let Err(error) = incoming.retry() {
                debug!(%remote, %error, "connection not accepted");
            }
            continue;
        }
        let server = Arc::clone(&server);
        spawn("serving a connection", async move {
            match incoming.accept() {
                Ok(connecting) => serve_connection(server, connecting, remote).await,
                Err(error) => debug!(%remote, %error, "connection not accepted"),
            }
        });
    }
}

/// Starts work of which a panic costs nothing but itself: a connection, a request, a message.
fn spawn(what: &'static str, work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(async move { drop(caught_async(what, work).await) });
}

async fn serve_connection<S: UniSink + 'static>(
    server: Arc<Server<S>>,
    connecting: quinn::Connecting,
    remote: SocketAddr,
) {
    let quic = match timeout(HELLO_WAIT, connecting).await {
        Ok(Ok(quic)) => quic,
        Ok(Err(error)) => return log_lost(&server.pool.dialler().log_limit, remote, &error),
        Err(_) => return debug!(%remote, "handshake not finished within {HELLO_WAIT:?}"),
    };
    let software = server.pool.dialler().software.clone();
    let greeted = timeout(HELLO_WAIT, greet(&*server.service, software, &server.admission, &quic)).await;
    let accepted = match greeted.unwrap_or_else(|_| Err(Greeting::Refused(Refusal::NoHello(HELLO_WAIT)))) {
        Ok(accepted) => Arc::new(accepted),
        Err(Greeting::Refused(refusal)) => {
            let reason = refusal.to_string();
            quic.close(CloseCode::Refused.into(), reason.as_bytes());
            if server.pool.dialler().log_limit.allows(&format!("{} {reason}", remote.ip())) {
                warn!(%remote, reason, "connection refused");
            }
            return;
        }
        Err(Greeting::Lost(error)) => return log_lost(&server.pool.dialler().log_limit, remote, &error),
    };
    debug!(%remote, caller = %accepted.caller, class = ?accepted.class, "connection accepted");
    if let Some(address) = accepted.advertised {
        server.pool.wake(address);
    }
    let closed = loop {
        tokio::select! {
            stream = accepted.quic.accept_bi() => match stream {
                Ok((send, recv)) => {
                    let (server, accepted) = (Arc::clone(&server), Arc::clone(&accepted));
                    spawn("serving a request", serve_stream(server, accepted, send, recv));
                }
                Err(error) => break error,
            },
            stream = accepted.quic.accept_uni() => match (stream, accepted.advertised) {
                (Ok(recv), Some(from)) => {
                    spawn("receiving a message", serve_one_way(Arc::clone(&server), from, recv));
                }
                (Ok(mut recv), None) => drop(recv.stop(CANCELLED)),
                (Err(error), _) => break error,
            },
        }
    };
    match closed {
        // The other side found fault with this node's answer to its hello, or with a reply.
        ConnectionError::ApplicationClosed(close) if close.error_code == CloseCode::Refused.into() => {
            log_lost(&server.pool.dialler().log_limit, remote, &ConnectionError::ApplicationClosed(close));
        }
        error => debug!(%remote, caller = %accepted.caller, reason = describe(&error), "connection ended"),
    }
}

/// Logs a lost connection: loud if one side refused the other, as then somebody has to mend something.
fn log_lost(log_limit: &LogLimit, remote: SocketAddr, error: &ConnectionError) {
    let reason = match error {
        ConnectionError::TransportError(error) => format!("this node refused it: {error}"),
        error => describe(error),
    };
    let loud = matches!(
        error,
        ConnectionError::TransportError(_)
            | ConnectionError::ConnectionClosed(_)
            | ConnectionError::ApplicationClosed(_)
    );
    if loud && log_limit.allows(&format!("{} {reason}", remote.ip())) {
        warn!(%remote, reason, "connection refused");
    } else {
        debug!(%remote, reason, "connection lost");
    }
}

/// Serves one request. The task ends when its answer was acknowledged, so that a stopping endpoint can wait for it.
async fn serve_stream<S>(
    server: Arc<Server<S>>,
    accepted: Arc<Accepted>,
    send: quinn::SendStream,
    mut recv: quinn::RecvStream,
) {
    let _in_flight = server.admission.in_flight();
    let mut send = ResetOnDrop::new(send);
    let header = match read_request_header(&mut recv).await {
        Ok(header) => header,
        Err(ReadFrameError::Frame(error @ FrameError::Magic(_))) => {
            let remote = accepted.quic.remote_address();
            warn!(%remote, caller = %accepted.caller, %error, "connection closed");
            accepted.quic.close(CloseCode::Protocol.into(), error.to_string().as_bytes());
            return;
        }
        Err(ReadFrameError::Stream(_) | ReadFrameError::Late(_)) => return,
        Err(error) => {
            let _ = recv.stop(CANCELLED);
            debug!(caller = %accepted.caller, %error, "request refused");
            return refuse(&mut send, error).await;
        }
    };
    let context = RequestContext::new(accepted.caller.clone(), Instant::now() + header.deadline(), header.trace)
        .with_epoch(header.epoch);
    let deadline = context.deadline;
    let settled = send.settled();
    let work = serve_request(&server, &accepted, &header, context, &mut recv, &mut send);
    let result = tokio::select! {
        // The caller gave up, or is gone: dropping the work cancels it.
        () = settled => return debug!(trace = %header.trace, kind = header.kind, "request cancelled"),
        result = timeout_at(deadline, work) => result.unwrap_or_else(|_| {
            let message = format!("{} was not done within {:?}", name(header.kind), header.deadline());
            Err(RpcError::new(ErrorCode::Timeout, message))
        }),
    };
    let _ = timeout_at(deadline + ANSWER_WAIT, conclude(&mut send, header.kind, result)).await;
}

async fn read_request_header(recv: &mut quinn::RecvStream) -> Result<RequestHeader, ReadFrameError> {
    let bytes = timeout(HEADER_WAIT, read_header::<REQUEST_HEADER_BYTES>(recv)).await;
    Ok(RequestHeader::decode(&bytes.unwrap_or(Err(ReadFrameError::Late(HEADER_WAIT)))?)?)
}

async fn serve_request<S>(
    server: &Server<S>,
    accepted: &Accepted,
    header: &RequestHeader,
    context: RequestContext,
    recv: &mut quinn::RecvStream,
    send: &mut ResetOnDrop,
) -> Result<Answer, RpcError> {
    let Server { service, admission, .. } = server;
    admission.check_running()?;
    let kind = check_kind(service, accepted, header)?;
    let admitted = admission.admit(&accepted.share)?;
    let (body, _held) =
        read_body(recv, header.body_bytes as usize, Some(admission.bodies())).await.map_err(unreadable)?;
    if header.kind == Hello::KIND {
        let software = server.pool.dialler().software.clone();
        return rpc::encode(&HelloReply { identity: service.identity(), software }).map(Answer::Reply);
    }
    if kind.stream == StreamKind::Chunks {
        // Boxed, so that the many requests with one reply do not carry the room for this.
        return Box::pin(serve_chunks(service, &admitted, kind, context, body, send)).await;
    }
    let bytes = body.len();
    let work = service.serve(context.clone(), kind.number, body);
    admitted.run(&context, kind.name, bytes, work).await.map(Answer::Reply)
}

async fn serve_chunks(
    service: &Arc<dyn Service>,
    admitted: &Admitted,
    kind: &Kind,
    context: RequestContext,
    body: Bytes,
    send: &mut ResetOnDrop,
) -> Result<Answer, RpcError> {
    let (bytes, name) = (body.len(), kind.name);
    let (chunks, waiting) = ChunkSender::channel();
    let work = service.serve_chunks(context.clone(), kind.number, body, chunks);
    let work = admitted.run(&context, name, bytes, work);
    let (result, sent) = tokio::join!(work, send_chunks(send, kind.number, waiting));
    if let Err(error) = sent {
        debug!(trace = %context.trace, name, %error, "chunks not sent");
    }
    result.map(|()| Answer::End)
}

/// Takes one message off a stream in one direction.
async fn serve_one_way<S: UniSink + 'static>(server: Arc<Server<S>>, from: SocketAddr, mut recv: quinn::RecvStream) {
    let header = read_request_header(&mut recv).await.map_err(unreadable);
    let checked = header.and_then(|header| {
        let kind = Kind::of(header.kind).ok_or_else(|| unknown_kind(header.kind))?;
        kind.check(header.stream, header.features)?;
        Ok((kind.number, header.body_bytes as usize))
    });
    match checked {
        Ok((GOSSIP_KIND, body_bytes)) => Arc::clone(&server.sink).receive(from, recv, body_bytes).await,
        Ok((kind, _)) => debug!(%from, kind, "message dropped: nobody takes it"),
        Err(error) => debug!(%from, %error, "message dropped"),
    }
}

/// Checks that this caller may ask this now, in this way.
fn check_kind(
    service: &Arc<dyn Service>,
    accepted: &Accepted,
    header: &RequestHeader,
) -> Result<&'static Kind, RpcError> {
    let kind = Kind::of(header.kind).ok_or_else(|| unknown_kind(header.kind))?;
    if kind.stream == StreamKind::OneWay {
        let message = format_args!("{} goes on a stream of one direction", kind.name);
        return Err(RpcError::new(ErrorCode::Protocol, message));
    }
    match &accepted.caller {
        Caller::Client(client) if kind.number >= PEER_KIND_MIN => {
            let message = format_args!("{} is asked by nodes only, and {client:?} connected as a client", kind.name);
            return Err(RpcError::new(ErrorCode::Forbidden, message));
        }
        // Both were without a mesh, or one was, when they said hello; since then they may have joined different ones.
        Caller::Peer(id) => same_mesh(*id, accepted.mesh_told, &service.identity()).map_err(|refusal| {
            let message = refusal.to_string();
            warn!(remote = %accepted.quic.remote_address(), reason = message, "connection refused");
            accepted.quic.close(CloseCode::Refused.into(), message.as_bytes());
            RpcError::new(ErrorCode::Forbidden, message)
        })?,
        Caller::Client(_) => {}
    }
    kind.check(header.stream, header.features)?;
    Ok(kind)
}

fn unknown_kind(kind: u16) -> RpcError {
    let message = format_args!("kind {kind} is unknown here: run the same release on both sides");
    RpcError::new(ErrorCode::Protocol, message)
}
